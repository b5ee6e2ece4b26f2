/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The verbs of `peerctl ca rotate`; of struct ctl_verb. Each may be repeated.
 */

#include "auth/authd.h"
#include "auth/survey.h"
#include "shared/ctl.h"

void rotate_start(struct ctl_call *call, void *auth, json_t *args);
void rotate_finish(struct ctl_call *call, void *auth, json_t *args);
void rotate_rollback(struct ctl_call *call, void *auth, json_t *args);
void rotate_status(struct ctl_call *call, void *auth, json_t *args);

/* How far it has come, for status; NULL: no authority. Gives. */
json_t *rotate_json(const struct authd *auth, const struct survey *survey);
/* What finish would cut off, one line; gives, NULL: nothing. */
char *rotate_objection(const struct ca_pair *cas, const struct survey *survey,
	bool host, bool user, int64_t now);
