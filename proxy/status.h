/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the parent tells of its workers. It asks none of them: each writes its
 * numbers into memory that the parent maps too.
 */

#include "shared/ctl.h"

/* The verb `status`; arg is the parent. */
void status_answer(struct ctl_call *call, void *arg, json_t *args);
/* For /readyz: a line for each thing that a worker lacks (gives), or NULL. arg
 * is the parent. */
char *status_missing(void *arg);
