/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * peerctl's questions to a daemon: a verb with JSON arguments, a JSON answer
 * (IPC_CTL_REQUEST, IPC_CTL_REPLY). A daemon lists its verbs in a table and
 * puts ctl_handle_request() into its handler table.
 */

#include <jansson.h>

#include "shared/ipc_link.h"

struct ctl_call;

struct ctl_verb {
	const char *name;
	/* Answers with ctl_reply() or ctl_fail(), now or later. Borrows args.
	 */
	void (*handle)(struct ctl_call *call, void *arg, json_t *args);
};

/* Set as link's argument's verbs with ctl_serve() before the first request;
 * borrows verbs (ended by a NULL name) and arg. One per process. */
void ctl_serve(const struct ctl_verb *verbs, void *arg);
/* To be called from the on_down of every link that may ask. */
void ctl_link_gone(struct ipc_link *link);
void ctl_handle_request(struct ipc_link *link, void *arg, struct ipc_msg *msg);

/* Each ends the call. ctl_reply takes answer. A link that has gone meanwhile
 * is harmless. */
void ctl_reply(struct ctl_call *call, json_t *answer);
void ctl_fail(struct ctl_call *call, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The same within the process, for a question that came another way: runs the
 * verb of the table (borrowed); done(done_arg) once, now or later, with the
 * answer or why there is none (borrowed texts). */
void ctl_run(const struct ctl_verb *verbs, void *arg, const char *verb,
	const char *args, void (*done)(void *arg, bool ok, const char *text),
	void *done_arg);

/* The client, blocking: one question to the daemon at path. The answer
 * (gives), or NULL and *error_out (gives, to free()) says why. */
json_t *ctl_ask(const char *path, const char *verb, const json_t *args,
	int timeout_ms, char **error_out);
