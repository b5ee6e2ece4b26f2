/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Counters, gauges and histograms in one array of 64-bit numbers per process;
 * proxy's workers write to arrays that their parent maps too, and /metrics
 * shows sums. A definition is one series; series of one name stand together in
 * the table.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/histogram.h"

struct metric {
	const char *name;   /* Prometheus name; counters end in _total */
	const char *labels; /* `route="local"`, or NULL */
	const char *help;   /* of the first series of a name */
	bool gauge;
	const struct histogram_shape *shape; /* of a histogram; else NULL */
};

struct metrics {
	const struct metric *table;
	size_t count;
	_Atomic int64_t *values; /* [slots][stride]: the numbers, histograms */
	size_t stride;
	size_t slots;
	size_t slot; /* this process writes here */
	void *own;   /* freed by metrics_deinit(); NULL: the caller's memory */
};

/* Bytes that slots arrays of the table's count series need. */
size_t metrics_size(const struct metric *table, size_t count, size_t slots);
/* memory: of metrics_size() bytes, zeroed, 8-aligned; borrowed. NULL: own. */
void metrics_init(struct metrics *metrics, const struct metric *table,
	size_t count, size_t slots, size_t slot, void *memory);
void metrics_deinit(struct metrics *metrics);

/* Safe from any thread. */
void metric_add(struct metrics *metrics, size_t index, int64_t n);
void metric_set(struct metrics *metrics, size_t index, int64_t value);
/* Of a histogram: counts value. */
void metric_observe(struct metrics *metrics, size_t index, uint64_t value);
/* Of a histogram: how many values the process of that slot has counted. */
uint64_t metric_observed(
	const struct metrics *metrics, size_t slot, size_t index);
/* Sum over the slots. */
int64_t metric_get(const struct metrics *metrics, size_t index);
/* A dead worker's gauges no longer count. */
void metrics_clear_gauges(struct metrics *metrics, size_t slot);

/* Prometheus text; gives, to free(). */
char *metrics_text(const struct metrics *metrics);
