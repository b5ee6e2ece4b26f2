/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A Prometheus histogram whose bounds grow by powers of two. Adding is two
 * relaxed atomic additions, from any thread; reading sees each number whole,
 * and of additions under way perhaps not all.
 */

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_BOUNDS_MAX 16

/* Bound k is first << (step * k), for k < count. */
struct histogram_shape {
	uint64_t first;
	unsigned step;
	unsigned count; /* at most HISTOGRAM_BOUNDS_MAX */
	double unit;	/* what 1 is in Prometheus's base unit: 1e-6 for us */
};

struct histogram {
	_Atomic uint64_t values[HISTOGRAM_BOUNDS_MAX + 1]; /* by bound; rest */
	_Atomic uint64_t sum;
};

void histogram_add(struct histogram *histogram,
	const struct histogram_shape *shape, uint64_t value);
/* How many values were added. */
uint64_t histogram_count(const struct histogram *histogram);
/* Adds what other has counted. */
void histogram_join(struct histogram *histogram, const struct histogram *other);
/* The lines name_bucket, name_sum and name_count. labels: `service="x"`, or
 * empty. */
void histogram_text(FILE *out, const struct histogram *histogram,
	const struct histogram_shape *shape, const char *name,
	const char *labels);
