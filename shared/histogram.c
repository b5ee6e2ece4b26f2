/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Histograms and their Prometheus text: see histogram.h. A newcomer's trap:
 * each value is counted in one place here, while Prometheus's buckets hold all
 * values up to their bound; histogram_text() sums up.
 */
#include "shared/histogram.h"

#include <inttypes.h>
#include <stdatomic.h>

static unsigned place_of(const struct histogram_shape *shape, uint64_t value)
{
	unsigned place = 0;

	while (place < shape->count && value > shape->first
						       << (shape->step * place))
		place++;
	return place;
}

void histogram_add(struct histogram *histogram,
	const struct histogram_shape *shape, uint64_t value)
{
	atomic_fetch_add_explicit(&histogram->values[place_of(shape, value)], 1,
		memory_order_relaxed);
	atomic_fetch_add_explicit(&histogram->sum, value, memory_order_relaxed);
}

static uint64_t value_at(const struct histogram *histogram, unsigned place)
{
	return atomic_load_explicit(
		&histogram->values[place], memory_order_relaxed);
}

uint64_t histogram_count(const struct histogram *histogram)
{
	uint64_t count = 0;

	for (unsigned i = 0; i <= HISTOGRAM_BOUNDS_MAX; i++)
		count += value_at(histogram, i);
	return count;
}

void histogram_join(struct histogram *histogram, const struct histogram *other)
{
	for (unsigned i = 0; i <= HISTOGRAM_BOUNDS_MAX; i++)
		atomic_fetch_add_explicit(&histogram->values[i],
			value_at(other, i), memory_order_relaxed);
	atomic_fetch_add_explicit(&histogram->sum,
		atomic_load_explicit(&other->sum, memory_order_relaxed),
		memory_order_relaxed);
}

void histogram_text(FILE *out, const struct histogram *histogram,
	const struct histogram_shape *shape, const char *name,
	const char *labels)
{
	double sum = (double)atomic_load_explicit(
		&histogram->sum, memory_order_relaxed);
	const char *comma = *labels ? "," : "";
	const char *open = *labels ? "{" : "", *close = *labels ? "}" : "";
	uint64_t count = 0;

	for (unsigned i = 0; i < shape->count; i++) {
		uint64_t bound = shape->first << (shape->step * i);

		count += value_at(histogram, i);
		fprintf(out, "%s_bucket{%s%sle=\"%.10g\"} %" PRIu64 "\n", name,
			labels, comma, (double)bound * shape->unit, count);
	}
	count += value_at(histogram, shape->count);
	fprintf(out,
		"%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n"
		"%s_sum%s%s%s %.10g\n%s_count%s%s%s %" PRIu64 "\n",
		name, labels, comma, count, name, open, labels, close,
		sum * shape->unit, name, open, labels, close, count);
}
