/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same SIGHUP for all daemons: see reload.h. What a newcomer gets wrong: a
 * value that a module copied at the start is not changed by this; the daemon's
 * apply() has to set it.
 */
#include "shared/reload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/daemon.h"
#include "shared/log.h"

static void set_log(const struct conf *conf)
{
	enum log_level level;

	if (log_level_parse(conf->log.level, &level) == 0)
		log_set_level(level);
	log_set_json(conf->log.format == CONF_LOG_JSON);
}

int reload_take(struct conf *conf, const char *path, const char *name,
	enum conf_daemon daemon, struct conf_changes *changes_out,
	char **error_out)
{
	struct conf *next = conf_load_as(path, name, error_out);

	if (!next)
		return -EINVAL;
	conf_take(conf, next, daemon, changes_out);
	conf_free(next); /* with what was conf's */
	set_log(conf);
	return 0;
}

static void say(const struct conf_changes *changes)
{
	char keys[1024] = "";
	size_t len = 0;

	for (unsigned i = 0; i < changes->taken_count; i++) {
		len += (size_t)snprintf(keys + len, sizeof(keys) - len, "%s%s",
			i ? "," : "", changes->taken[i]);
		if (len >= sizeof(keys))
			break;
	}
	if (changes->taken_count)
		log_info("configuration read again: changed=%s", keys);
	else
		log_info("configuration read again: nothing in it to take up");
	for (unsigned i = 0; i < changes->left_count; i++)
		log_warn("changed in the file, but it needs a restart: key=%s",
			changes->left[i]);
}

static void notify_reloading(void)
{
	struct timespec now;
	char text[64];

	clock_gettime(CLOCK_MONOTONIC, &now);
	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%lld",
		now.tv_sec * 1000000LL + now.tv_nsec / 1000);
	daemon_notify(text);
}

bool reload(const struct reload *reload)
{
	struct conf_changes changes;
	char *error = NULL;
	int ret;

	if (reload->ready)
		notify_reloading();
	ret = reload_take(reload->conf,
		reload->path ? reload->path : reload->name, reload->name,
		reload->daemon, &changes, &error);
	if (ret == 0) {
		say(&changes);
		reload->apply(reload->arg, &changes);
	} else {
		log_error("configuration stays as it was: %s", error);
		free(error);
	}
	if (reload->ready)
		daemon_notify("READY=1");
	return ret == 0;
}
