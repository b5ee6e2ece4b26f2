/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How late an event may be served: once a second a timer measures by how much
 * it came too late, be it that the loop was busy or that the process did not
 * run.
 */

#include "shared/loop.h"
#include "shared/metrics.h"

struct lag;

extern const struct histogram_shape lag_shape; /* us */
/* The series' definition, for a table of metrics. */
#define LAG_METRIC                                                       \
	{                                                                \
		.name = "peerway_event_loop_lag_seconds",                \
		.help = "How late a timer that fires every second was.", \
		.shape = &lag_shape                                      \
	}

/* Counts into that series of metrics (borrowed). Gives. */
struct lag *lag_new(struct loop *loop, struct metrics *metrics, size_t index);
/* NULL is fine. */
void lag_free(struct lag *lag);
