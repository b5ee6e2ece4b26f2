/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The diagnostic address of a daemon, plain HTTP for the local host:
 * /healthz (200 while the loop turns), /readyz (200, or 503 with a line for
 * each thing that is missing), /metrics, to which it adds what every process
 * says of itself (process_metrics.h).
 */

#include "shared/loop.h"
#include "shared/metrics.h"

struct diag;

struct diag_ops {
	/* Text of what is missing, one line each (gives, to free()), or NULL:
	 * ready. */
	char *(*missing)(void *arg);
	/* More Prometheus text for /metrics (gives, to free()), or NULL. May be
	 * NULL. */
	char *(*more_metrics)(void *arg);
	/* Where LAG_METRIC is in the table: measured while there is a
	 * diagnostic address. */
	size_t lag;
};

/* addr "host:port"; empty: no diagnostics, and NULL without errno. NULL and
 * errno when the port is taken. Borrows ops, metrics and arg. */
struct diag *diag_new(struct loop *loop, const char *addr,
	const struct diag_ops *ops, struct metrics *metrics, void *arg);
void diag_free(struct diag *diag);
