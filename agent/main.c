/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent: runs beside the services, keeps reverse tunnels up, connects
 * streams to the services it announced. Wiring only; agent.h has the agent.
 *
 * What one gets wrong: this program must stay small (2 MiB of its own memory
 * with an idle tunnel). What start-up alone needs is given back before the loop
 * runs, and all threads share one malloc arena.
 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>

#include "agent/agent.h"
#include "agent/series.h"
#include "agent/setup.h"
#include "shared/conf.h"
#include "shared/daemon.h"
#include "shared/diag.h"
#include "shared/log.h"
#include "shared/reload.h"

/* What streams have to end by themselves when the agent is told to stop. */
#define STOP_LINGER_MS 5000
/* Start-up, the first handshakes and services that did not read leave holes in
 * the heap. */
#define TRIM_FIRST_MS 5000
#define TRIM_MS 30000

struct process {
	struct loop *loop;
	struct agent *agent;
	struct metrics metrics;
	struct timer *trim;
	int64_t joined_at_trim;
	struct conf *conf;
	const char *config_path;
	bool stopping;
};

static void on_stopped(void *arg)
{
	struct process *process = arg;

	loop_stop(process->loop);
}

static void on_stop_signal(int signal, void *arg)
{
	struct process *process = arg;

	if (process->stopping) {
		agent_stop(process->agent, 0, on_stopped, process);
		return;
	}
	process->stopping = true;
	log_info("stopping: signal=%d", signal);
	daemon_stopping(STOP_LINGER_MS);
	agent_stop(process->agent, STOP_LINGER_MS, on_stopped, process);
}

/* The files that somebody else renews; one that is torn changes nothing. */
static void read_identity(struct process *process, const struct conf *conf)
{
	struct tls_identity *identity = NULL;
	char *error = NULL;

	if (setup_own_identity(conf, &identity, &error) == 0 && !identity)
		return;
	if (identity &&
		agent_replace_identity(process->agent, identity, &error) == 0)
		log_info("certificate read again");
	else
		log_error("certificate stays as it was: %s", error);
	free(error);
	tls_identity_unref(identity);
}

static void apply(void *arg, const struct conf_changes *changes)
{
	struct process *process = arg;
	const struct conf *conf = process->conf;
	const char **addrs = setup_addrs(&conf->agent);

	agent_set_limits(process->agent,
		&(struct agent_limits){
			.reconnect_max_ms = conf->agent.reconnect_max_interval,
			.surplus_timeout_ms = conf->agent.surplus_timeout,
			.token_file = conf->join.token_file,
			.ca_pin = conf->join.ca_pin,
		});
	if (agent_announce(process->agent, setup_registration(&conf->agent, ""),
		    addrs))
		log_info("announced anew: services=%u labels=%u",
			conf->agent.services_count, conf->agent.labels_count);
	free(addrs);
	read_identity(process, conf);
}

static void on_reload_signal(int signal, void *arg)
{
	struct process *process = arg;

	if (process->stopping)
		return;
	reload(&(struct reload){
		.conf = process->conf,
		.name = process->config_path,
		.daemon = CONF_AGENT,
		.ready = true,
		.apply = apply,
		.arg = process,
	});
	malloc_trim(0);
	/* Whoever sends it may know that a proxy is back. */
	agent_reconnect(process->agent);
}

static void on_trim(void *arg)
{
	struct process *process = arg;
	int64_t joined = metric_get(&process->metrics, SERIES_STREAMS_JOINED);

	timer_set(process->trim, TRIM_MS);
	if (joined == process->joined_at_trim ||
		metric_get(&process->metrics, SERIES_STREAMS))
		return;
	process->joined_at_trim = joined;
	malloc_trim(0);
}

static char *missing(void *arg)
{
	struct process *process = arg;

	return agent_missing(process->agent);
}

static const struct diag_ops diag_ops = {.missing = missing, .lag = SERIES_LAG};

int main(int argc, char **argv)
{
	struct process process = {.joined_at_trim = -1};
	struct daemon_options options;
	struct diag *diag;
	struct conf *conf;
	char *error = NULL;

	mallopt(M_ARENA_MAX, 1);
	conf = daemon_start(argc, argv, "agent",
		"Keeps reverse tunnels up and serves them.", false, &options);
	if (!conf->agent.enabled)
		die("agent_service is not enabled in %s", options.config_path);
	process.conf = conf;
	process.config_path = options.config_path;
	daemon_raise_fd_limit();
	process.loop = loop_new();
	metrics_init(&process.metrics, series_table, SERIES_COUNT, 1, 0, NULL);
	process.agent =
		setup_agent(conf, process.loop, &process.metrics, &error);
	if (!process.agent)
		die("cannot start: %s", error);
	errno = 0;
	diag = diag_new(process.loop, conf->diag.agent, &diag_ops,
		&process.metrics, &process);
	if (!diag && errno)
		die("cannot listen on diag.agent %s: %m", conf->diag.agent);
	loop_on_signal(process.loop, SIGTERM, on_stop_signal, &process);
	loop_on_signal(process.loop, SIGINT, on_stop_signal, &process);
	loop_on_signal(process.loop, SIGHUP, on_reload_signal, &process);
	log_info("started: name=%s services=%u", conf->agent.name,
		conf->agent.services_count);
	process.trim = timer_new(process.loop, on_trim, &process);
	timer_set(process.trim, TRIM_FIRST_MS);
	malloc_trim(0);
	daemon_notify("READY=1");
	daemon_run(process.loop);

	timer_free(process.trim);
	diag_free(diag);
	agent_free(process.agent);
	metrics_deinit(&process.metrics);
	conf_free(conf);
	log_info("stopped");
	return 0;
}
