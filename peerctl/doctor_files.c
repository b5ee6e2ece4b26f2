/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor's checks of what lies on the disk: directories, secrets that others
 * can read, room, and this host's certificate.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "peerctl/doctor.h"
#include "peerctl/file.h"
#include "peerctl/table.h"
#include "shared/alloc.h"
#include "shared/identity.h"

#define ROOM_WARN (256ull << 20)
#define ROOM_FAIL (16ull << 20)

/* ---- directories ---- */

static void check_directory(
	struct doctor *doctor, const char *key, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0) {
		enum doctor_state state =
			errno == ENOENT ? DOCTOR_WARN : DOCTOR_FAIL;

		doctor_add(doctor, state,
			xasprintf("%s %s: %s", key, path, strerror(errno)),
			xasprintf("install -d -m 2770 -o USER -g GROUP %s, for "
				  "the user that the daemons run as",
				path));
		return;
	}
	if (!S_ISDIR(st.st_mode))
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("%s %s is not a directory", key, path),
			xstrdup("move it away"));
	else if (st.st_mode & S_IWOTH)
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf(
				"%s %s can be written by everybody", key, path),
			xasprintf("chmod o-w %s", path));
}

/* Only its owner, and with group_may its group, may have any right. */
static void check_secret(struct doctor *doctor, const char *what,
	const char *path, bool group_may)
{
	mode_t forbidden = group_may ? S_IRWXO : S_IRWXG | S_IRWXO;
	struct stat st;

	if (!*path || stat(path, &st) < 0 || !(st.st_mode & forbidden))
		return;
	doctor_add(doctor, DOCTOR_WARN,
		xasprintf("%s %s can be read by others: mode %03o", what, path,
			st.st_mode & 0777),
		xasprintf("chmod %s %s", group_may ? "o-rwx" : "go-rwx", path));
}

static void check_secrets(struct doctor *doctor)
{
	const struct conf *conf = doctor->conf;
	const char *config = doctor->options->config_path;
	char *authd = xasprintf("%s/authd", conf->data_dir);
	char *host = xasprintf("%s/identity/current/key.pem", conf->data_dir);
	char *agent = xasprintf("%s/agent/key.pem", conf->data_dir);

	if (conf->auth.enabled)
		check_secret(
			doctor, "the store of the CAs' keys", authd, false);
	check_secret(doctor, "the host's key", host, true);
	check_secret(doctor, "the agent's key", agent, true);
	check_secret(doctor, "identity.key", conf->identity.key, true);
	check_secret(doctor, "the token", conf->join.token_file, true);
	check_secret(doctor, "ca_key_file", conf->auth.ca_key_file, false);
	check_secret(doctor, "the password",
		conf->auth.storage.user.password_file, true);
	if (strchr(conf->agent.https_proxy, '@') && config)
		check_secret(doctor,
			"the configuration, with a password in it,", config,
			true);
	free(authd);
	free(host);
	free(agent);
}

static void check_room(struct doctor *doctor, const char *key, const char *path)
{
	struct statvfs fs;
	uint64_t room;

	if (statvfs(path, &fs) < 0)
		return;
	room = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (room < ROOM_WARN)
		doctor_add(doctor, room < ROOM_FAIL ? DOCTOR_FAIL : DOCTOR_WARN,
			xasprintf("%s %s has %llu MiB of room left", key, path,
				(unsigned long long)(room >> 20)),
			xasprintf("df -h %s; make room or another data_dir",
				path));
	if (fs.f_files && fs.f_favail < 1000)
		doctor_add(doctor, DOCTOR_WARN,
			xasprintf("%s %s has room for %llu files more", key,
				path, (unsigned long long)fs.f_favail),
			xasprintf("df -i %s; remove files", path));
}

void doctor_check_directories(struct doctor *doctor)
{
	const struct conf *conf = doctor->conf;

	check_directory(doctor, "data_dir", conf->data_dir);
	check_room(doctor, "data_dir", conf->data_dir);
	if (conf->proxy.enabled || conf->auth.enabled)
		check_directory(doctor, "run_dir", conf->run_dir);
	check_secrets(doctor);
	if (doctor_all_well(doctor))
		doctor_add(doctor, DOCTOR_OK,
			xstrdup("there, with room, and secrets are secret"),
			NULL);
}

/* ---- certificates ---- */

static void no_identity(struct doctor *doctor)
{
	const struct conf *conf = doctor->conf;
	const char *token = conf->join.token_file;

	if (*conf->identity.cert) {
		char *error = NULL;
		struct tls_identity *identity = tls_identity_load_files(
			conf->identity.cert, conf->identity.key,
			conf->identity.ca, NULL, &error);

		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("the files of identity cannot be used: %s",
				error ? error : "user_ca"),
			xstrdup("put a whole set in place, then SIGHUP to "
				"routed or the agent"));
		free(error);
		tls_identity_unref(identity);
	} else if (geteuid() && access(conf->data_dir, R_OK | X_OK) < 0) {
		doctor_add(doctor, DOCTOR_WARN,
			xasprintf("%s may not be read by you", conf->data_dir),
			xstrdup("look again as root"));
	} else if (!*token) {
		doctor_add(doctor, DOCTOR_FAIL,
			xstrdup("this host has no certificate and no token"),
			xstrdup("peerctl token add on the auth host; then "
				"join.token_file and join.ca_pin here"));
	} else if (access(token, F_OK) < 0) {
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("this host has no certificate, and the token "
				  "%s: %s",
				token, strerror(errno)),
			xstrdup("peerctl token add on the auth host, and put "
				"the token there"));
	} else {
		doctor_add(doctor, DOCTOR_WARN,
			xstrdup("this host has not joined yet"),
			xstrdup("start its daemons; the log of routed or the "
				"agent says why joining fails"));
	}
}

static int64_t unix_time(const ASN1_TIME *time)
{
	struct tm tm;

	return ASN1_TIME_to_tm(time, &tm) ? timegm(&tm) : 0;
}

static void check_life(struct doctor *doctor, const char *name,
	const X509 *cert, const char *advice)
{
	int64_t from = unix_time(X509_get0_notBefore(cert));
	int64_t until = unix_time(X509_get0_notAfter(cert));
	int64_t left = until - doctor->now;
	char text[32];

	table_duration(left < 0 ? -left : left, text, sizeof(text));
	if (left < 0)
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("%s ended %s ago", name, text),
			xstrdup(advice));
	else if (left < (until - from) / 4) /* renewed when a third is left */
		doctor_add(doctor, DOCTOR_WARN,
			xasprintf("%s ends in %s", name, text),
			xstrdup(advice));
	else
		doctor_add(doctor, DOCTOR_OK,
			xasprintf("%s is good for %s", name, text), NULL);
}

/* As configured, or as kept; gives, NULL: none yet, or not to be read. */
static char *read_uuid(const struct conf *conf)
{
	char *path;
	char *text;

	if (*conf->host_uuid)
		return xstrdup(conf->host_uuid);
	path = xasprintf("%s/host_uuid", conf->data_dir);
	text = file_read(path);
	if (text)
		text[strcspn(text, "\n")] = '\0';
	free(path);
	return text;
}

static void check_names(struct doctor *doctor)
{
	char *uuid = read_uuid(doctor->conf);
	const struct conf *conf = doctor->conf;
	enum identity_role role =
		conf->proxy.enabled ? IDENTITY_PROXY : IDENTITY_NODE;
	struct host_identity who;
	const char *why = "";

	if (identity_of_host(
		    doctor->identity->leaf, conf->cluster_name, &who, &why) < 0)
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("the certificate is not one of a host of "
				  "%s: %s",
				conf->cluster_name, why),
			xstrdup("set cluster_name as on the auth host, or join "
				"again"));
	else if (!(who.roles & role))
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("the certificate is not one of %s",
				conf->proxy.enabled ? "a proxy" : "an agent"),
			xasprintf("join with a token of --role %s",
				conf->proxy.enabled ? "proxy" : "node"));
	else if (uuid && strcmp(uuid, who.uuid))
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("the certificate is of host %s, this one is "
				  "%s",
				who.uuid, uuid),
			xstrdup("put data_dir/host_uuid back, or join again"));
	free(uuid);
}

/* Whether the CAs that the host trusts have made it. */
static void check_issuer(struct doctor *doctor)
{
	struct tls_identity *identity = doctor->identity;
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();

	for (int i = 0; i < sk_X509_num(identity->host_ca); i++)
		X509_STORE_add_cert(store, sk_X509_value(identity->host_ca, i));
	if (X509_STORE_CTX_init(ctx, store, identity->leaf, identity->chain) &&
		X509_verify_cert(ctx) != 1)
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("the certificate does not lead to the host "
				  "CA: %s",
				X509_verify_cert_error_string(
					X509_STORE_CTX_get_error(ctx))),
			xstrdup("join again with a new token"));
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
}

void doctor_check_certificates(struct doctor *doctor)
{
	const struct conf *conf = doctor->conf;
	const struct tls_identity *identity = doctor->identity;
	bool own = *conf->identity.cert;

	if (!identity) {
		no_identity(doctor);
		return;
	}
	check_life(doctor, "the host's certificate", identity->leaf,
		own ? "put a new one in place, then SIGHUP to routed or the "
		      "agent"
		    : "its daemon renews it: see its log, and the findings on "
		      "auth or proxies below. When it has ended: join again "
		      "with a new token");
	check_names(doctor);
	check_issuer(doctor);
	for (int i = 0; i < sk_X509_num(identity->host_ca); i++)
		check_life(doctor, "the host CA",
			sk_X509_value(identity->host_ca, i),
			"peerctl ca rotate start, on the auth host");
	for (int i = 0; i < sk_X509_num(identity->user_ca); i++)
		check_life(doctor, "the user CA",
			sk_X509_value(identity->user_ca, i),
			"peerctl ca rotate start, on the auth host");
	if (conf->proxy.enabled && !sk_X509_num(identity->user_ca))
		doctor_add(doctor, DOCTOR_FAIL,
			xstrdup("there is no user CA: no client is let in"),
			xstrdup("set identity.user_ca, then SIGHUP to routed"));
}
