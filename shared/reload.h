/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * SIGHUP, as every daemon takes it: the file is read again and checked whole;
 * a bad one changes nothing and is one line in the log. Else what may change
 * while the daemon runs (conf_use.h) is put into conf, the log's level and
 * format are set, each key that needs a restart is named, and apply() hands on
 * what lies in copies elsewhere.
 */

#include "shared/conf_change.h"

struct reload {
	struct conf *conf; /* the daemon's own, changed in place */
	const char *name;  /* of the file, for people */
	const char *path;  /* to read it from; NULL: name */
	enum conf_daemon daemon;
	bool ready; /* the service manager has been told so */
	/* Also when no key has changed: the files that keys name may have. */
	void (*apply)(void *arg, const struct conf_changes *changes);
	void *arg;
};

/* Borrows all for the call. False: the file is bad. Tells the service manager
 * (RELOADING=1, READY=1). */
bool reload(const struct reload *reload);

/* The part of it that speaks to nobody. 0, or -EINVAL and *error_out (gives).
 */
int reload_take(struct conf *conf, const char *path, const char *name,
	enum conf_daemon daemon, struct conf_changes *changes_out,
	char **error_out);
