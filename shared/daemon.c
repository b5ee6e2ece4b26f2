/* SPDX-License-Identifier: Apache-2.0 */
/* What every main does the same way: see daemon.h. */
#include "shared/daemon.h"

#include <argp.h>
#include <openssl/crypto.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/log.h"

#define DEFAULT_CONFIG "/etc/peerway/peerway.yaml"

#define STOP_SLACK_MS 15000

enum { OPT_CHECK = 256, OPT_WORKER };

const char *argp_program_version = "peerway " PEERWAY_VERSION;

static const struct argp_option options[] = {
	{"config", 'c', "FILE", 0,
		"Configuration file (default " DEFAULT_CONFIG ")", 0},
	{"check-config", OPT_CHECK, NULL, 0,
		"Check the configuration and exit: 0 good, 1 with one line", 0},
	{"worker", OPT_WORKER, "N", OPTION_HIDDEN, NULL, 0},
	{0},
};

static error_t on_option(int key, char *value, struct argp_state *state)
{
	struct daemon_options *opts = state->input;

	switch (key) {
	case 'c':
		opts->config_path = value;
		return 0;
	case OPT_CHECK:
		opts->check_only = true;
		return 0;
	case OPT_WORKER:
		opts->worker = atoi(value);
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument: %s", value);
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static void start_log(const struct conf *conf, const char *name, int worker)
{
	enum log_level level = LOG_INFO;

	(void)log_level_parse(conf->log.level, &level);
	if (worker >= 0) {
		/* lives as long as the process, like the log */
		name = xasprintf("%s/%d", name, worker);
		/* a program that was run by way of /proc is "exe" in ps */
		prctl(PR_SET_NAME, name);
	}
	log_init(name, level, conf->log.format == CONF_LOG_JSON);
	atexit(log_end);
}

struct conf *daemon_start(int argc, char **argv, const char *name,
	const char *summary, bool has_workers,
	struct daemon_options *options_out)
{
	struct argp argp = {
		options, on_option, NULL, summary, NULL, NULL, NULL};
	struct daemon_options opts = {
		.config_path = DEFAULT_CONFIG, .worker = -1};
	struct conf *conf;
	char *error;

	argp_err_exit_status = 2;
	argp_parse(&argp, argc, argv, 0, NULL, &opts);
	if (opts.worker >= 0 && !has_workers) {
		fprintf(stderr, "%s: no such option: --worker\n", name);
		exit(2);
	}
	conf = conf_load(opts.config_path, &error);
	if (!conf) {
		fprintf(stderr, "%s\n", error);
		free(error);
		exit(1);
	}
	if (opts.check_only) {
		conf_free(conf);
		exit(0);
	}
	start_log(conf, name, opts.worker);
	/* gRPC's threads may still use OpenSSL when the process ends: its state
	 * is left to the kernel, not pulled from under them. */
	OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
	*options_out = opts;
	return conf;
}

long daemon_raise_fd_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1024;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur;
}

void daemon_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t len;
	int fd;

	if (!path || (*path != '/' && *path != '@') ||
		strlen(path) >= sizeof(addr.sun_path))
		return;
	strcpy(addr.sun_path, path);
	len = offsetof(struct sockaddr_un, sun_path) + strlen(path);
	if (*path == '@')
		addr.sun_path[0] = 0; /* the abstract namespace */
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, state, strlen(state), MSG_NOSIGNAL,
		    (struct sockaddr *)&addr, len) < 0)
		log_warn("cannot notify the service manager: %m");
	close(fd);
}

void daemon_stopping(int64_t within_ms)
{
	char text[80];

	snprintf(text, sizeof(text), "STOPPING=1\nEXTEND_TIMEOUT_USEC=%lld",
		(long long)(within_ms + STOP_SLACK_MS) * 1000);
	daemon_notify(text);
}

/* --- watchdog --- */

struct watchdog {
	struct timer *timer;
	int64_t interval_ms;
};

/* 0: nobody watches this process. A worker has its parent's environment. */
static int64_t watchdog_interval(void)
{
	const char *usec = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");
	int64_t interval;

	if (!usec || (pid && strtoll(pid, NULL, 10) != getpid()))
		return 0;
	interval = strtoll(usec, NULL, 10) / 2000;
	return interval > 0 ? interval : 0;
}

static void on_watchdog(void *arg)
{
	struct watchdog *watchdog = arg;

	daemon_notify("WATCHDOG=1");
	timer_set(watchdog->timer, watchdog->interval_ms);
}

void daemon_run(struct loop *loop)
{
	struct watchdog watchdog = {.interval_ms = watchdog_interval()};

	if (watchdog.interval_ms) {
		watchdog.timer = timer_new(loop, on_watchdog, &watchdog);
		timer_set(watchdog.timer, 0);
	}
	loop_run(loop);
	timer_free(watchdog.timer);
}
