/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor's checks of the kernel: settings that a busy host needs, and the
 * clock. Only what has been a cause of trouble is looked at; each row says why.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>
#include <time.h>

#include "peerctl/doctor.h"
#include "shared/alloc.h"
#include "shared/sock.h"

#define CLOCK_WARN_S 5
#define CLOCK_FAIL_S 60
#define CLOCK_PEERS_MAX 16 /* as many are asked */
#define MIB (1024ll * 1024)

int64_t doctor_sysctl_number(const char *text, unsigned index)
{
	for (;; index--) {
		char *end;
		long long value = strtoll(text, &end, 10);

		if (end == text)
			return -1;
		if (!index)
			return value;
		text = end;
	}
}

/* net.core.somaxconn; -1: this kernel has none. */
static int64_t setting(const char *name, unsigned index)
{
	char path[128];
	char text[128] = "";
	int64_t value = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/sys/%s", name);
	for (char *p = path + strlen("/proc/sys/"); *p; p++)
		if (*p == '.')
			*p = '/';
	file = fopen(path, "re");
	if (!file)
		return -1;
	if (fgets(text, sizeof(text), file))
		value = doctor_sysctl_number(text, index);
	fclose(file);
	return value;
}

/* ---- settings ---- */

static int64_t all_descriptors(const struct conf *conf)
{
	return conf->proxy.enabled
		       ? (int64_t)(conf->proxy.workers *
				   (doctor_worker_descriptors(&conf->proxy) +
					   conf->proxy.max_clients))
		       : 65536;
}

static int64_t one_worker(const struct conf *conf)
{
	return conf->proxy.enabled
		       ? (int64_t)doctor_worker_descriptors(&conf->proxy)
		       : 4096;
}

/* Both directions of a connection are one entry; an entry stays for a while. */
static int64_t connections(const struct conf *conf)
{
	int64_t proxy =
		2ll * conf->proxy.workers *
		((int64_t)conf->proxy.max_clients + conf->proxy.max_tunnels);

	return conf->proxy.enabled ? proxy : 65536;
}

static int64_t backlog(const struct conf *conf)
{
	return conf->proxy.enabled ? 4096 : -1;
}

static int64_t buffers(const struct conf *conf)
{
	return 4 * MIB;
}

static const struct {
	const char *name;
	unsigned index;
	/* At least; -1: does not matter here. */
	int64_t (*wanted)(const struct conf *conf);
	const char *format; /* of the new value */
	const char *why;
} settings[] = {
	{"net.core.somaxconn", 0, backlog, "%ld",
		"connections that come together wait in the listener's queue"},
	{"net.ipv4.tcp_max_syn_backlog", 0, backlog, "%ld",
		"connections that come together wait in the listener's queue"},
	{"net.ipv4.tcp_rmem", 2, buffers, "'4096 131072 %ld'",
		"one stream over a long way needs a large window"},
	{"net.ipv4.tcp_wmem", 2, buffers, "'4096 16384 %ld'",
		"one stream over a long way needs a large window"},
	{"fs.file-max", 0, all_descriptors, "%ld",
		"descriptors of all workers together"},
	{"fs.nr_open", 0, one_worker, "%ld",
		"no limit of a process can be above it"},
	{"net.netfilter.nf_conntrack_max", 0, connections, "%ld",
		"when it is full, new connections are dropped silently"},
};

static char *with_value(const char *format, int64_t value)
{
	const char *at = strstr(format, "%ld");

	return xasprintf("%.*s%ld%s", (int)(at - format), format, (long)value,
		at + strlen("%ld"));
}

static void check_settings(struct doctor *doctor)
{
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		int64_t wanted = settings[i].wanted(doctor->conf);
		int64_t value = setting(settings[i].name, settings[i].index);
		char *text;

		if (wanted < 0 || value < 0 || value >= wanted)
			continue;
		text = with_value(settings[i].format, wanted);
		doctor_add(doctor, DOCTOR_WARN,
			xasprintf("%s is %ld, less than %ld: %s",
				settings[i].name, (long)value, (long)wanted,
				settings[i].why),
			xasprintf("sysctl -w %s=%s, and the same into "
				  "/etc/sysctl.d/",
				settings[i].name, text));
		free(text);
	}
}

static void check_conntrack_use(struct doctor *doctor)
{
	int64_t max = setting("net.netfilter.nf_conntrack_max", 0);
	int64_t used = setting("net.netfilter.nf_conntrack_count", 0);

	if (max > 0 && used * 10 > max * 8)
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("%ld of %ld connections that netfilter can "
				  "track are in use",
				(long)used, (long)max),
			xasprintf(
				"sysctl -w net.netfilter.nf_conntrack_max=%ld",
				(long)max * 2));
}

/* An outgoing connection may have the port of a listener that restarts. */
static void judge_port(struct doctor *doctor, const char *key, const char *addr)
{
	int64_t low = setting("net.ipv4.ip_local_port_range", 0);
	int64_t high = setting("net.ipv4.ip_local_port_range", 1);
	char reserved[4096] = "";
	char host[SOCK_ADDR_MAX];
	char number[8];
	uint16_t port;
	FILE *file;

	if (!*addr || sock_split(addr, 1, host, sizeof(host), &port) < 0 ||
		port < low || port > high)
		return;
	file = fopen("/proc/sys/net/ipv4/ip_local_reserved_ports", "re");
	if (file && !fgets(reserved, sizeof(reserved), file))
		reserved[0] = '\0';
	if (file)
		fclose(file);
	snprintf(number, sizeof(number), "%u", port);
	if (strstr(reserved, number))
		return;
	doctor_add(doctor, DOCTOR_WARN,
		xasprintf("port %u of %s lies in ip_local_port_range: an "
			  "outgoing connection may have it when the daemon "
			  "starts",
			port, key),
		xasprintf("sysctl -w net.ipv4.ip_local_reserved_ports=%u (with "
			  "those that are there), or take another port",
			port));
}

void doctor_check_kernel(struct doctor *doctor)
{
	const struct conf *conf = doctor->conf;

	check_settings(doctor);
	check_conntrack_use(doctor);
	if (conf->auth.enabled)
		judge_port(doctor, "auth_service.listen_addr",
			conf->auth.listen_addr);
	if (conf->proxy.enabled) {
		judge_port(doctor, "proxy_service.listen_addr",
			conf->proxy.listen_addr);
		judge_port(doctor, "proxy_service.tunnel_listen_addr",
			conf->proxy.tunnel_listen_addr);
		judge_port(doctor, "proxy_service.peer_listen_addr",
			conf->proxy.peer_listen_addr);
	}
	if (doctor_all_well(doctor))
		doctor_add(doctor, DOCTOR_OK,
			xstrdup("settings are as large as they need be"), NULL);
}

/* ---- clock ---- */

static void check_synchronised(struct doctor *doctor)
{
	struct timex timex = {0};

	if (adjtimex(&timex) < 0)
		return;
	if (timex.status & STA_UNSYNC)
		doctor_add(doctor, DOCTOR_WARN,
			xstrdup("the clock is not synchronised: certificates "
				"are refused when hosts disagree"),
			xstrdup("run chrony or systemd-timesyncd; timedatectl "
				"says more"));
}

static void check_own_certificate(struct doctor *doctor)
{
	const X509 *leaf = doctor->identity ? doctor->identity->leaf : NULL;
	time_t now = (time_t)doctor->now;

	if (leaf && X509_cmp_time(X509_get0_notBefore(leaf), &now) > 0)
		doctor_add(doctor, DOCTOR_FAIL,
			xstrdup("the clock is before the beginning of this "
				"host's certificate"),
			xstrdup("set the clock: it is more than an hour slow"));
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* RFC 3339 with milliseconds; 0: it is none. */
static double parse_time(const char *text)
{
	struct tm tm = {0};
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	return rest ? (double)timegm(&tm) + strtod(rest, NULL) : 0;
}

/* What a peer's clock says, at the middle of the question's way. */
static void check_peer(struct doctor *doctor, const json_t *peer)
{
	const char *id = status_text(peer, "id");
	json_t *args = json_pack("{s:s, s:s}", "peer", id, "verb", "status");
	double before = now_s();
	char *error = NULL;
	json_t *answer =
		options_ask(doctor->options, "peerd", "ask", args, &error);
	double after = now_s();
	double theirs = parse_time(status_text(answer, "time"));
	double ahead = theirs - (before + after) / 2;
	double apart = (ahead < 0 ? -ahead : ahead) - (after - before) / 2;

	if (theirs > 0 && apart > CLOCK_WARN_S)
		doctor_add(doctor,
			apart > CLOCK_FAIL_S ? DOCTOR_FAIL : DOCTOR_WARN,
			xasprintf("the clock of peer %s (%.8s) is %.0f s %s "
				  "this one",
				status_text(peer, "hostname"), id,
				ahead < 0 ? -ahead : ahead,
				ahead < 0 ? "behind" : "ahead of"),
			xstrdup("synchronise both hosts' clocks (chrony, "
				"systemd-timesyncd)"));
	json_decref(args);
	json_decref(answer);
	free(error);
}

static void check_peers(struct doctor *doctor)
{
	const json_t *peers =
		json_object_get(doctor->answers.of[PEERD], "peers");
	double end = now_s() + DOCTOR_WAIT_MS / 1000.0;
	unsigned asked = 0;
	const json_t *peer;
	size_t i;

	json_array_foreach(peers, i, peer)
	{
		if (asked >= CLOCK_PEERS_MAX || now_s() > end)
			break;
		if (strcmp(status_text(peer, "state"), "ready"))
			continue;
		check_peer(doctor, peer);
		asked++;
	}
	if (doctor_all_well(doctor))
		doctor_add(doctor, DOCTOR_OK,
			asked ? xasprintf("as that of %u peer%s", asked,
					asked == 1 ? "" : "s")
			      : xstrdup("nothing speaks against it"),
			NULL);
}

void doctor_check_clock(struct doctor *doctor)
{
	check_synchronised(doctor);
	check_own_certificate(doctor);
	check_peers(doctor);
}
