/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * backup.start and backup.status: authd makes a copy of its store in its own
 * directory, data_dir/authd/backup-<number>.db, and peerctl takes it from
 * there.
 *
 * Why not into a descriptor of peerctl's, or over the socket: the copy holds
 * the CAs' keys, and the group of run_dir, the proxies among them, may ask for
 * anything here. So the verbs give away a path, and the directory's mode says
 * who can use it: authd's own user, and root. authd needs to write nowhere
 * else, and waits for no disk (peerctl does).
 *
 *   backup.start   {} -> {"id", "path"}
 *   backup.status  {"id"} -> {"done", "copied", "of"}
 *
 * A copy that nobody has taken within ten minutes is removed, and at the next
 * start of authd what was left behind.
 */

#include <jansson.h>

#include "shared/ctl.h"

struct authd;

/* The newest one; in struct authd. */
struct backup {
	unsigned id; /* 0: none yet */
	char *path;  /* NULL: never was, or gone again */
	char *error; /* NULL: all is well */
	bool copying;
	struct timer *forget;
};

void backup_start(struct ctl_call *call, void *arg, json_t *args);
void backup_status(struct ctl_call *call, void *arg, json_t *args);

/* Removes what an earlier authd has left behind. */
void backup_clean(struct authd *auth);
/* Behind the backend's end. */
void backup_deinit(struct authd *auth);
