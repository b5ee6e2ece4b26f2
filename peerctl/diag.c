/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diag: all that one asks for when a host does not do what it should, in one
 * archive. Everything but what peerctl makes itself goes through scrub.h.
 *
 * What a newcomer gets wrong: it has to work best when things are broken. What
 * cannot be had is a line in the manifest, not an end.
 */
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <gnu/libc-version.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "peerctl/bundle_file.h"
#include "peerctl/command.h"
#include "peerctl/doctor.h"
#include "peerctl/fetch.h"
#include "peerctl/journal.h"
#include "peerctl/scrub.h"
#include "peerctl/table.h"
#include "shared/alloc.h"

#define TEXT_MAX (4l << 20)
#define JOURNAL_MS 10000
#define PIDS_MAX 66
#define LOGS_MAX 32

struct diag_options {
	const char *out;
	const char *logs[LOGS_MAX];
	unsigned log_count;
};

struct collection {
	struct bundle_file *bundle;
	struct scrub *scrub;
	struct doctor doctor;
};

/* Takes text and name; NULL text: missing, because of why. */
static void add(struct collection *c, char *name, char *text, const char *why)
{
	char *clean = text ? scrub_text(c->scrub, text) : NULL;

	if (clean)
		bundle_file_add(c->bundle, name, clean);
	else
		bundle_file_miss(c->bundle, name, why);
	free(clean);
	free(text);
	free(name);
}

static void add_json(struct collection *c, const char *name, json_t *json)
{
	add(c, xstrdup(name), json_dumps(json, JSON_INDENT(2)), "not JSON");
	json_decref(json);
}

/* ---- the parts ---- */

static void add_conf(struct collection *c)
{
	const char *path = c->doctor.options->config_path;
	char *error = NULL;
	char *text;
	char *clean;

	if (!path)
		path = OPTIONS_DEFAULT_CONFIG;
	text = fetch_file(path, TEXT_MAX, 0);
	clean = text ? scrub_conf(c->scrub, path, text, &error) : NULL;
	add(c, xstrdup("peerway.yaml"), clean, error ? error : strerror(errno));
	free(error);
	free(text);
}

static void add_diag_text(struct collection *c, const char *daemon,
	const char *addr, const char *path)
{
	char *error = NULL;
	int status = 0;
	char *text;

	if (!*addr)
		return;
	text = fetch_diag(addr, path, DOCTOR_WAIT_MS, &status, &error);
	add(c, xasprintf("%s/%s.txt", path + 1, daemon), text, error);
	free(error);
}

static void add_daemons(struct collection *c)
{
	const struct conf_diag *diag = &c->doctor.conf->diag;
	const struct {
		const char *name;
		const char *addr;
	} all[] = {
		{"authd", diag->authd},
		{"routed", diag->routed},
		{"peerd", diag->peerd},
		{"proxy", diag->proxy},
		{"agent", diag->agent},
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		add_diag_text(c, all[i].name, all[i].addr, "/readyz");
		add_diag_text(c, all[i].name, all[i].addr, "/metrics");
	}
}

static void add_versions(struct collection *c)
{
	char *system = fetch_file("/etc/os-release", 4096, 0);
	struct utsname kernel;

	uname(&kernel);
	add(c, xstrdup("versions.txt"),
		xasprintf("peerctl %s\n%s\nlibevent %s\njansson %s\nglibc %s\n"
			  "%s %s %s %s\n%s",
			PEERWAY_VERSION, OpenSSL_version(OPENSSL_VERSION),
			event_get_version(), jansson_version_str(),
			gnu_get_libc_version(), kernel.sysname, kernel.release,
			kernel.version, kernel.machine, system ? system : ""),
		NULL);
	free(system);
}

static void add_process(struct collection *c, const char *daemon, pid_t pid)
{
	static const char *const parts[] = {"limits", "status", "cgroup"};
	char *text = xstrdup("");
	char path[64];
	char *all;

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		char *part;

		snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, parts[i]);
		part = fetch_file(path, 65536, 0);
		all = xasprintf("%s==> %s\n%s\n", text, path,
			part ? part : strerror(errno));
		free(part);
		free(text);
		text = all;
	}
	add(c, xasprintf("limits/%s-%d.txt", daemon, (int)pid), text, NULL);
}

static void add_limits(struct collection *c)
{
	for (int i = 0; i < DAEMON_COUNT; i++) {
		pid_t pids[PIDS_MAX];
		unsigned count = doctor_pids(&c->doctor, i, pids, PIDS_MAX);

		for (unsigned k = 0; k < count; k++)
			add_process(c, status_daemons[i], pids[k]);
	}
}

/* tcp_fastopen_key is one. */
static bool is_shown(const struct dirent *entry)
{
	return entry->d_type == DT_REG && !strstr(entry->d_name, "key") &&
	       !strstr(entry->d_name, "secret");
}

/* Every setting below these directories that can be read. */
static void add_sysctl(struct collection *c)
{
	static const char *const below[] = {"/proc/sys/net/core",
		"/proc/sys/net/ipv4", "/proc/sys/net/netfilter",
		"/proc/sys/fs"};
	char *text = xstrdup("");

	for (size_t i = 0; i < sizeof(below) / sizeof(below[0]); i++) {
		DIR *dir = opendir(below[i]);
		struct dirent *entry;

		while (dir && (entry = readdir(dir))) {
			char *path =
				xasprintf("%s/%s", below[i], entry->d_name);
			char *value = is_shown(entry)
					      ? fetch_file(path, 1024, 0)
					      : NULL;
			char *longer;

			if (value) {
				value[strcspn(value, "\n")] = '\0';
				longer = xasprintf(
					"%s%s = %s\n", text, path, value);
				free(text);
				text = longer;
			}
			free(value);
			free(path);
		}
		if (dir)
			closedir(dir);
	}
	add(c, xstrdup("sysctl.txt"), text, NULL);
}

static void print_certs(BIO *out, const STACK_OF(X509) * certs)
{
	for (int i = 0; i < sk_X509_num(certs); i++) {
		X509_print(out, sk_X509_value(certs, i));
		PEM_write_bio_X509(out, sk_X509_value(certs, i));
	}
}

/* What is public of them; the key is not touched. */
static void add_certificates(struct collection *c)
{
	const struct tls_identity *identity = c->doctor.identity;
	BIO *out;
	char *bytes;
	long len;

	if (!identity) {
		bundle_file_miss(c->bundle, "certificates.txt",
			"this host has none, or they cannot be read");
		return;
	}
	out = BIO_new(BIO_s_mem());
	X509_print(out, identity->leaf);
	PEM_write_bio_X509(out, identity->leaf);
	print_certs(out, identity->chain);
	print_certs(out, identity->host_ca);
	print_certs(out, identity->user_ca);
	len = BIO_get_mem_data(out, &bytes);
	add(c, xstrdup("certificates.txt"), xstrndup(bytes, (size_t)len), NULL);
	BIO_free(out);
}

static void add_logs(struct collection *c, const struct diag_options *own)
{
	char *error = NULL;
	char *text;

	for (unsigned i = 0; i < own->log_count; i++) {
		const char *slash = strrchr(own->logs[i], '/');

		text = fetch_file(own->logs[i], TEXT_MAX, 1);
		add(c,
			xasprintf("logs/%u-%s", i + 1,
				slash ? slash + 1 : own->logs[i]),
			text, strerror(errno));
	}
	text = journal_read(JOURNAL_MS, &error);
	add(c, xstrdup("logs/journal.txt"), text, error);
	free(error);
}

/* ---- the command ---- */

static const struct argp_option diag_options_list[] = {
	{"out", 'o', "FILE", 0,
		"The archive; must not exist (default "
		"peerway-diag-HOST-TIME.tar.gz)",
		0},
	{"logs", 'l', "FILE", 0,
		"A log to take along, its last 4 MiB; may be given often. The "
		"journal's lines of units peerway-* come by themselves",
		0},
	{0},
};

static void on_option(void *arg, int key, char *value, struct argp_state *state)
{
	struct diag_options *own = arg;

	if (key == 'o')
		own->out = value;
	else if (own->log_count == LOGS_MAX)
		argp_error(state, "--logs: more than %d", LOGS_MAX);
	else
		own->logs[own->log_count++] = value;
}

static void collect(struct collection *c, const struct diag_options *own)
{
	add_conf(c);
	doctor_run(&c->doctor);
	add_json(c, "doctor.json", doctor_as_json(&c->doctor));
	add_json(c, "status.json", status_as_json(&c->doctor.answers));
	add_daemons(c);
	add_versions(c);
	add_limits(c);
	add_sysctl(c);
	add_certificates(c);
	add_logs(c, own);
}

static int run(struct options *options, const struct diag_options *own,
	const struct conf *conf)
{
	struct collection c = {0};
	char host[65] = "host";
	char when[32];
	time_t now = time(NULL);
	char *error = NULL;
	char *directory;
	char *path;
	unsigned count;
	int ret = EXIT_OK;

	gethostname(host, sizeof(host) - 1);
	strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", gmtime(&now));
	directory = xasprintf("peerway-diag-%s-%s", host, when);
	path = own->out ? xstrdup(own->out) : xasprintf("%s.tar.gz", directory);
	c.bundle = bundle_file_new(path, directory, &error);
	if (c.bundle) {
		c.scrub = scrub_new(conf);
		doctor_init(&c.doctor, options, conf);
		collect(&c, own);
		count = bundle_file_count(c.bundle);
		doctor_deinit(&c.doctor);
		scrub_free(c.scrub);
		if (bundle_file_close(c.bundle, &error) < 0)
			ret = command_fail("%s", error);
		else if (options->json)
			table_print_json(json_pack("{s:s, s:i}", "file", path,
				"files", (int)count));
		else
			printf("%s: %u files; it names hosts, users and "
			       "addresses, but holds no keys\n",
				path, count);
	} else {
		ret = command_fail("%s", error);
	}
	free(error);
	free(path);
	free(directory);
	return ret;
}

int diag_command(struct options *options, int argc, char **argv)
{
	struct diag_options own = {0};
	const struct options_spec spec = {
		.doc = "Packs what one asks for when something does not work "
		       "into one archive: configuration without secrets, what "
		       "doctor found, status and metrics of the daemons, "
		       "versions, limits, certificates, recent logs."
		       "\vTokens, keys and passwords are left out. Run it as "
		       "root to have all of it.",
		.list = diag_options_list,
		.on_option = on_option,
		.own = &own,
	};
	const struct conf *conf;

	options_parse(options, argc, argv, &spec);
	conf = options_conf(options);
	return conf ? run(options, &own, conf) : EXIT_FAILED;
}
