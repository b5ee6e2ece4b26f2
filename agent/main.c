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
#include <string.h>

#include "agent/agent.h"
#include "agent/series.h"
#include "agent/setup.h"
#include "shared/alloc.h"
#include "shared/conf.h"
#include "shared/daemon.h"
#include "shared/diag.h"
#include "shared/log.h"

/* What streams have to end by themselves when the agent is told to stop. */
#define STOP_LINGER_MS 5000
/* Until a proxy has said what the cluster wants. */
#define PING_INTERVAL_MS 15000
#define PING_COUNT_MAX 2
/* Bytes held for services that do not read. */
#define STREAM_BUFFER_MAX (4u << 20)
#define BUFFER_MAX (64u << 20)
/* Start-up and the first handshakes leave holes in the heap. */
#define TRIM_MS 5000

struct process {
	struct loop *loop;
	struct agent *agent;
	struct timer *trim;
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
	daemon_notify("STOPPING=1");
	agent_stop(process->agent, STOP_LINGER_MS, on_stopped, process);
}

static void on_trim(void *arg)
{
	malloc_trim(0);
}

static char *missing(void *arg)
{
	struct process *process = arg;

	return agent_missing(process->agent);
}

static const struct diag_ops diag_ops = {.missing = missing};

/* The own PKI's files, if configured; NULL: a keystore. */
static struct tls_identity *own_identity(const struct conf *conf)
{
	struct tls_identity *identity;
	char *error;

	if (!*conf->identity.cert)
		return NULL;
	identity = tls_identity_load_files(conf->identity.cert,
		conf->identity.key, conf->identity.ca, NULL, &error);
	if (!identity)
		die("cannot use the identity: %s", error);
	return identity;
}

static void start_agent(struct process *process, const struct conf *conf,
	struct metrics *metrics)
{
	struct agent_config config = {
		.loop = process->loop,
		.resolver = resolver_new(process->loop),
		.tunnel = {conf->agent.max_streams, PING_INTERVAL_MS,
			PING_COUNT_MAX, STREAM_BUFFER_MAX, BUFFER_MAX},
		.metrics = metrics,
		.cluster = conf->cluster_name,
		.servers = (const char *const *)conf->agent.proxy_server,
		.server_count = conf->agent.proxy_server_count,
		.identity = own_identity(conf),
		.token_file = conf->join.token_file,
		.ca_pin = conf->join.ca_pin,
	};
	char *directory = xasprintf("%s/agent", conf->data_dir);
	const char **addrs = setup_addrs(&conf->agent);
	char uuid[CONF_UUID_SIZE], *error;
	int ret = conf_host_uuid(conf, uuid);

	if (ret < 0)
		die("cannot keep the host's uuid in %s: %s", conf->data_dir,
			strerror(-ret));
	config.directory = directory;
	config.hub = tunnel_hub_new(process->loop, &config.tunnel);
	config.registration = setup_registration(&conf->agent, uuid);
	config.service_addrs = addrs;
	process->agent = agent_new(&config, &error);
	if (!process->agent)
		die("cannot start: %s", error);
	tls_identity_unref(config.identity);
	free(addrs);
	free(directory);
}

int main(int argc, char **argv)
{
	struct process process = {0};
	struct daemon_options options;
	struct metrics metrics;
	struct diag *diag;
	struct conf *conf;

	mallopt(M_ARENA_MAX, 1);
	conf = daemon_start(argc, argv, "agent",
		"Keeps reverse tunnels up and serves them.", false, &options);
	if (!conf->agent.enabled)
		die("agent_service is not enabled in %s", options.config_path);
	daemon_raise_fd_limit();
	process.loop = loop_new();
	metrics_init(&metrics, series_table, SERIES_COUNT, 1, 0, NULL);
	start_agent(&process, conf, &metrics);
	errno = 0;
	diag = diag_new(
		process.loop, conf->diag.agent, &diag_ops, &metrics, &process);
	if (!diag && errno)
		die("cannot listen on diag.agent %s: %m", conf->diag.agent);
	loop_on_signal(process.loop, SIGTERM, on_stop_signal, &process);
	loop_on_signal(process.loop, SIGINT, on_stop_signal, &process);
	log_info("started: name=%s services=%u", conf->agent.name,
		conf->agent.services_count);
	conf_free(conf);
	process.trim = timer_new(process.loop, on_trim, NULL);
	timer_set(process.trim, TRIM_MS);
	malloc_trim(0);
	daemon_notify("READY=1");
	loop_run(process.loop);

	timer_free(process.trim);
	diag_free(diag);
	agent_free(process.agent);
	metrics_deinit(&metrics);
	log_info("stopped");
	return 0;
}
