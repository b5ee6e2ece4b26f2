/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor: looks at this host as its daemons need it, and says what to do about
 * each thing that is not well. Reads only.
 *
 * What a newcomer gets wrong: it may run where no daemon does, before the first
 * start. A check looks at the configuration, and at a daemon's word only when
 * there is one.
 */
#include "peerctl/doctor.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "peerctl/command.h"
#include "peerctl/table.h"
#include "shared/alloc.h"

enum { ON_AUTH = 1, ON_PROXY = 2, ON_AGENT = 4, ANYWHERE = 7 };

static const struct {
	const char *name;
	unsigned where;
	void (*run)(struct doctor *doctor);
} checks[] = {
	{"daemons", ANYWHERE, doctor_check_daemons},
	{"descriptors", ANYWHERE, doctor_check_descriptors},
	{"kernel", ANYWHERE, doctor_check_kernel},
	{"clock", ANYWHERE, doctor_check_clock},
	{"directories", ANYWHERE, doctor_check_directories},
	{"ports", ANYWHERE, doctor_check_ports},
	{"names", ANYWHERE, doctor_check_names},
	{"certificates", ON_PROXY | ON_AGENT, doctor_check_certificates},
	{"auth", ON_PROXY, doctor_check_auth},
	{"peers", ON_PROXY, doctor_check_peers},
	{"proxies", ON_AGENT, doctor_check_proxies},
};

static const struct {
	const char *name;
	const char *mark;
	const char *colour;
} states[DOCTOR_STATES] = {
	[DOCTOR_OK] = {"ok", "ok  ", "32"},
	[DOCTOR_WARN] = {"warn", "warn", "33"},
	[DOCTOR_FAIL] = {"fail", "FAIL", "31"},
};

/* ---- findings ---- */

void doctor_add(struct doctor *doctor, enum doctor_state state, char *what,
	char *advice)
{
	json_t *finding = json_pack("{s:s, s:s, s:s, s:s?}", "check",
		doctor->check, "state", states[state].name, "what", what, "do",
		state == DOCTOR_OK ? NULL : advice);

	if (!finding) /* text of others that is not UTF-8 */
		finding = json_pack("{s:s, s:s, s:s, s:n}", "check",
			doctor->check, "state", states[state].name, "what", "?",
			"do");
	json_array_append_new(doctor->findings, finding);
	doctor->counts[state]++;
	free(what);
	free(advice);
}

bool doctor_all_well(const struct doctor *doctor)
{
	const json_t *finding;
	size_t i;

	json_array_foreach(doctor->findings, i, finding)
	{
		if (!strcmp(status_text(finding, "check"), doctor->check) &&
			strcmp(status_text(finding, "state"), "ok"))
			return false;
	}
	return true;
}

/* ---- running ---- */

static struct tls_identity *load_identity(const struct conf *conf)
{
	const struct conf_identity *own = &conf->identity;
	const char *below = conf->proxy.enabled ? "identity/current" : "agent";
	struct tls_identity *identity;
	char *error = NULL;
	char *directory;

	if (*own->cert)
		return tls_identity_load_files(own->cert, own->key, own->ca,
			*own->user_ca ? own->user_ca : NULL, &error);
	directory = xasprintf("%s/%s", conf->data_dir, below);
	identity = tls_identity_load(directory, &error);
	free(directory);
	free(error);
	return identity;
}

void doctor_init(
	struct doctor *doctor, struct options *options, const struct conf *conf)
{
	*doctor = (struct doctor){
		.options = options,
		.conf = conf,
		.now = time(NULL),
		.findings = json_array(),
	};
	if (!options->ask_ms)
		options->ask_ms = DOCTOR_WAIT_MS;
	doctor->identity = load_identity(conf);
	status_ask_all(options, &doctor->answers);
}

void doctor_run(struct doctor *doctor)
{
	const struct conf *conf = doctor->conf;
	unsigned here = (conf->auth.enabled ? ON_AUTH : 0) |
			(conf->proxy.enabled ? ON_PROXY : 0) |
			(conf->agent.enabled ? ON_AGENT : 0);

	doctor->check = "configuration";
	if (here)
		doctor_add(doctor, DOCTOR_OK,
			xasprintf("without errors: cluster %s,%s%s%s",
				conf->cluster_name,
				conf->auth.enabled ? " auth_service" : "",
				conf->proxy.enabled ? " proxy_service" : "",
				conf->agent.enabled ? " agent_service" : ""),
			NULL);
	else
		doctor_add(doctor, DOCTOR_FAIL,
			xstrdup("no service is enabled"),
			xstrdup("add auth_service, proxy_service or "
				"agent_service: peerway.yaml(5)"));
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		doctor->check = checks[i].name;
		if (checks[i].where & here)
			checks[i].run(doctor);
	}
}

void doctor_deinit(struct doctor *doctor)
{
	json_decref(doctor->findings);
	tls_identity_unref(doctor->identity);
	status_answers_deinit(&doctor->answers);
}

json_t *doctor_as_json(const struct doctor *doctor)
{
	return json_pack("{s:O, s:i, s:i, s:i}", "findings", doctor->findings,
		"ok", (int)doctor->counts[DOCTOR_OK], "warn",
		(int)doctor->counts[DOCTOR_WARN], "fail",
		(int)doctor->counts[DOCTOR_FAIL]);
}

unsigned doctor_pids(
	const struct doctor *doctor, int daemon, pid_t *pids, unsigned max)
{
	const json_t *answer = doctor->answers.of[daemon];
	const json_t *worker;
	unsigned count = 0;
	size_t i;

	if (!answer || !max)
		return 0;
	pids[count++] = (pid_t)status_number(answer, "pid");
	if (daemon == PROXY)
		json_array_foreach(json_object_get(answer, "workers"), i,
			worker) if (count < max && status_number(worker, "pid"))
			pids[count++] = (pid_t)status_number(worker, "pid");
	return count;
}

/* ---- showing ---- */

static int state_of(const json_t *finding)
{
	int state = DOCTOR_STATES - 1;

	while (state &&
		strcmp(states[state].name, status_text(finding, "state")))
		state--;
	return state;
}

static void print_lines(const struct doctor *doctor)
{
	const json_t *finding;
	size_t i;

	table_be_wide(); /* what to do is to be read whole */
	json_array_foreach(doctor->findings, i, finding)
	{
		int state = state_of(finding);

		table_line(states[state].colour, "%s %s: %s",
			states[state].mark, status_text(finding, "check"),
			status_text(finding, "what"));
		if (state != DOCTOR_OK)
			table_line(NULL, "     do: %s",
				status_text(finding, "do"));
	}
	table_line(NULL, "%u well, %u to look at, %u to mend",
		doctor->counts[DOCTOR_OK], doctor->counts[DOCTOR_WARN],
		doctor->counts[DOCTOR_FAIL]);
}

static void print_table(const struct doctor *doctor)
{
	static const char *const headings[] = {
		"CHECK", "STATE", "WHAT", "DO", NULL};
	struct table *table = table_new(headings);
	const json_t *finding;
	size_t i;

	json_array_foreach(doctor->findings, i, finding)
	{
		table_member(table, finding, "check");
		table_member(table, finding, "state");
		table_member(table, finding, "what");
		table_member(table, finding, "do");
	}
	table_print(table);
	table_free(table);
}

int doctor_command(struct options *options, int argc, char **argv)
{
	const struct options_spec spec = {
		.doc = "Looks at this host as its daemons need it: "
		       "configuration, daemons, descriptors, kernel settings, "
		       "clock, directories, ports, names, certificates, auth "
		       "servers, peers, proxies. Says what to do about "
		       "whatever is not well."
		       "\vChanges nothing. As root it sees most. Exit status "
		       "1 when something has to be mended.",
	};
	const struct conf *conf;
	struct doctor doctor;
	int ret;

	options_parse(options, argc, argv, &spec);
	conf = options_conf(options);
	if (!conf)
		return EXIT_FAILED;
	doctor_init(&doctor, options, conf);
	doctor_run(&doctor);
	if (options->json)
		table_print_json(doctor_as_json(&doctor));
	else if (isatty(STDOUT_FILENO))
		print_lines(&doctor);
	else
		print_table(&doctor);
	ret = doctor.counts[DOCTOR_FAIL] ? EXIT_FAILED : EXIT_OK;
	doctor_deinit(&doctor);
	return ret;
}
