/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * run_dir/authd.sock: what peerctl asks for. Who may connect may do everything
 * here: root, authd's user and the group of run_dir.
 *
 *   status          ca
 *   token.add       token.ls        token.rm
 *   backup.start    backup.status   backup.h
 *   identity.issue  a user's certificate for a key that stays with the user
 *   ca.rotate.start, .status, .finish, .rollback      rotate.h
 */

#include "auth/authd.h"

/* False and *error_out (gives). */
bool control_start(struct authd *auth, char **error_out);
void control_stop(struct authd *auth);

/* RFC 3339, UTC; of Unix seconds. */
#define CONTROL_TIME_SIZE 32
void control_time(int64_t seconds, char out[CONTROL_TIME_SIZE]);
