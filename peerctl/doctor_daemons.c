/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor's checks of what daemons say: whether they run, their descriptors, the
 * peers. What is wrong is status_findings()'s judgement, the same as that of
 * `status`; here is only what to do about it.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "peerctl/doctor.h"
#include "peerctl/fetch.h"
#include "shared/alloc.h"

#define PIDS_MAX 66
#define DESCRIPTORS_BASE 256 /* links, cache, listeners, certificates */

/* ---- what status says ---- */

static const struct {
	const char *about;
	enum doctor_state state;
	const char *advice;
} advices[] = {
	{"daemon", DOCTOR_FAIL,
		"start it; if it ends again, its log says why. If it runs: is "
		"run_dir the same for all, and do you belong to its group?"},
	{"authd", DOCTOR_FAIL,
		"see the findings on auth below: is authd running, and its "
		"port open from here?"},
	{"store", DOCTOR_FAIL,
		"look at etcd: etcdctl endpoint health, and the endpoints in "
		"auth_service.storage"},
	{"strategy", DOCTOR_WARN,
		"write the same tunnel_strategy into the file of every auth "
		"server, and restart them"},
	{"routed", DOCTOR_FAIL, "look at routed's log; start it if it is away"},
	{"drain", DOCTOR_WARN, "if this is not wanted: peerctl undrain"},
	{"certificate", DOCTOR_WARN,
		"it should have been renewed at two thirds of its life: see "
		"the findings on certificates and auth below"},
	{"duplicate", DOCTOR_FAIL,
		"give each proxy host its own peer_public_addr and restart "
		"its routed"},
	{"peer", DOCTOR_FAIL,
		"is that host up, and its peer_public_addr (port 3021) open "
		"from here? There: peerctl doctor"},
};

/* Adds those on peers, or all others. */
static void add_findings(struct doctor *doctor, bool on_peers)
{
	json_t *findings = status_findings(&doctor->answers, doctor->now);
	const json_t *finding;
	size_t i;

	json_array_foreach(findings, i, finding)
	{
		const char *about = status_text(finding, "about");
		size_t k = 0;

		if (on_peers !=
			(!strcmp(about, "peer") || !strcmp(about, "duplicate")))
			continue;
		while (strcmp(advices[k].about, about))
			k++;
		doctor_add(doctor, advices[k].state,
			xstrdup(status_text(finding, "text")),
			xstrdup(advices[k].advice));
	}
	json_decref(findings);
}

/* The program on disk was replaced, the process was not. */
static void check_versions(struct doctor *doctor)
{
	for (int i = 0; i < DAEMON_COUNT; i++) {
		const char *version =
			status_text(doctor->answers.of[i], "version");

		if (doctor->answers.of[i] && strcmp(version, PEERWAY_VERSION))
			doctor_add(doctor, DOCTOR_WARN,
				xasprintf("%s is version %s, peerctl %s",
					status_daemons[i], version,
					PEERWAY_VERSION),
				xasprintf("restart %s, or install one version",
					status_daemons[i]));
	}
}

static void add_running(struct doctor *doctor)
{
	for (int i = 0; i < DAEMON_COUNT; i++)
		if (doctor->answers.of[i])
			doctor_add(doctor, DOCTOR_OK,
				xasprintf("%s runs: version %s, pid %lld",
					status_daemons[i],
					status_text(doctor->answers.of[i],
						"version"),
					status_number(
						doctor->answers.of[i], "pid")),
				NULL);
}

/* What /readyz says, where there is such an address. */
static void check_ready(
	struct doctor *doctor, const char *daemon, const char *addr)
{
	char *error = NULL;
	int status = 0;
	char *body;

	if (!*addr)
		return;
	body = fetch_diag(addr, "/readyz", DOCTOR_WAIT_MS, &status, &error);
	if (body && status == 200)
		doctor_add(doctor, DOCTOR_OK, xasprintf("%s is ready", daemon),
			NULL);
	else if (body)
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("%s is not ready: %.*s", daemon,
				(int)strcspn(body, "\n"), body),
			xasprintf("see the other findings, and the whole of "
				  "http://%s/readyz",
				addr));
	else
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("%s does not answer: %s", daemon, error),
			xasprintf("start %s; if it ends again, its log says "
				  "why",
				daemon));
	free(body);
	free(error);
}

static void check_all_ready(struct doctor *doctor)
{
	const struct conf *conf = doctor->conf;
	const char *const addrs[DAEMON_COUNT] = {
		[AUTHD] = conf->diag.authd,
		[ROUTED] = conf->diag.routed,
		[PEERD] = conf->diag.peerd,
		[PROXY] = conf->diag.proxy,
	};

	/* of those that are away it has been said */
	for (int i = 0; i < DAEMON_COUNT; i++)
		if (doctor->answers.of[i])
			check_ready(doctor, status_daemons[i], addrs[i]);
	if (!conf->agent.enabled)
		return;
	check_ready(doctor, "agent", conf->diag.agent);
	if (!*conf->diag.agent)
		doctor_add(doctor, DOCTOR_WARN,
			xstrdup("whether the agent runs is not known"),
			xstrdup("set diag.agent to an address of this host, as "
				"127.0.0.1:3000"));
}

void doctor_check_daemons(struct doctor *doctor)
{
	add_findings(doctor, false);
	check_versions(doctor);
	add_running(doctor);
	check_all_ready(doctor);
}

/* ---- descriptors ---- */

uint64_t doctor_worker_descriptors(const struct conf_proxy *proxy)
{
	/* a client's, and one to peerd when its tunnel is elsewhere */
	return 2ull * proxy->max_clients + proxy->max_tunnels +
	       proxy->max_handshakes + proxy->max_tunnel_handshakes +
	       DESCRIPTORS_BASE;
}

static uint64_t wanted_of(const struct conf *conf, int daemon)
{
	switch (daemon) {
	case PROXY:
		return doctor_worker_descriptors(&conf->proxy);
	case PEERD: /* one for each stream between it and a worker */
		return (uint64_t)conf->proxy.workers * conf->proxy.max_clients +
		       DESCRIPTORS_BASE;
	default:
		return 4 * DESCRIPTORS_BASE;
	}
}

/* Of /proc/PID/limits; -1: not to be read. */
static int64_t limit_of(pid_t pid)
{
	char path[64];
	char line[256];
	int64_t limit = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/limits", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, "Max open files", 14) &&
			sscanf(line + 14, "%ld", &limit) != 1)
			limit = INT64_MAX; /* unlimited */
	fclose(file);
	return limit;
}

static int64_t used_by(pid_t pid)
{
	char path[64];
	int64_t count = -2; /* "." and ".." */
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return -1;
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* pid 0: of whatever is started from here. */
static void judge_limit(
	struct doctor *doctor, const char *name, pid_t pid, uint64_t wanted)
{
	int64_t limit = pid ? limit_of(pid) : -1;
	int64_t used = pid ? used_by(pid) : -1;
	char *who = pid ? xasprintf("%s (pid %d)", name, (int)pid)
			: xasprintf("%s, if it is started from here", name);
	struct rlimit own;

	if (!pid && !getrlimit(RLIMIT_NOFILE, &own))
		limit = own.rlim_max > INT64_MAX ? INT64_MAX
						 : (int64_t)own.rlim_max;
	if (limit >= 0 && used * 10 >= limit * 9)
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("%s uses %ld of %ld descriptors", who, used,
				limit),
			xasprintf("raise its limit (LimitNOFILE=%lu in its "
				  "unit, or ulimit -n) and restart it",
				wanted));
	else if (limit >= 0 && (uint64_t)limit < wanted)
		doctor_add(doctor, DOCTOR_WARN,
			xasprintf("%s may use %ld descriptors, and its limits "
				  "in the configuration can take %lu",
				who, limit, wanted),
			xasprintf("LimitNOFILE=%lu in its unit (or ulimit -n), "
				  "or lower max_clients and max_tunnels",
				wanted));
	else if (limit >= 0)
		doctor_add(doctor, DOCTOR_OK,
			xasprintf("%s may use %ld, %lu at most are needed", who,
				limit, wanted),
			NULL);
	free(who);
}

void doctor_check_descriptors(struct doctor *doctor)
{
	const struct conf *conf = doctor->conf;

	for (int i = 0; i < DAEMON_COUNT; i++) {
		uint64_t wanted = wanted_of(conf, i);
		pid_t pids[PIDS_MAX];
		unsigned count = doctor_pids(doctor, i, pids, PIDS_MAX);

		if (i == AUTHD ? !conf->auth.enabled : !conf->proxy.enabled)
			continue;
		if (!count)
			judge_limit(doctor, status_daemons[i], 0, wanted);
		/* the proxy's parent needs next to none */
		for (unsigned k = i == PROXY && count > 1; k < count; k++)
			judge_limit(doctor, status_daemons[i], pids[k], wanted);
	}
	if (conf->agent.enabled)
		judge_limit(doctor, "agent", 0,
			(uint64_t)conf->agent.max_streams + DESCRIPTORS_BASE);
}

/* ---- peers ---- */

void doctor_check_peers(struct doctor *doctor)
{
	const json_t *peerd = doctor->answers.of[PEERD];
	const json_t *peers = json_object_get(peerd, "peers");

	if (!peerd) {
		doctor_add(doctor, DOCTOR_WARN,
			xstrdup("peerd does not run: whether peers can be "
				"reached is not known"),
			xstrdup("start peerd, and look again"));
		return;
	}
	add_findings(doctor, true);
	if (doctor_all_well(doctor))
		doctor_add(doctor, DOCTOR_OK, status_summary(peers), NULL);
}
