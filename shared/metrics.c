/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters, gauges, histograms and their Prometheus text: see metrics.h. Behind
 * the numbers of all series stand the histograms, in the order of the table.
 */
#include "shared/metrics.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"

/* Numbers that a histogram takes. */
#define HISTOGRAM_CELLS (sizeof(struct histogram) / sizeof(int64_t))

static size_t histograms_before(const struct metric *table, size_t index)
{
	size_t n = 0;

	for (size_t i = 0; i < index; i++)
		n += table[i].shape != NULL;
	return n;
}

static size_t stride_of(const struct metric *table, size_t count)
{
	return count + histograms_before(table, count) * HISTOGRAM_CELLS;
}

size_t metrics_size(const struct metric *table, size_t count, size_t slots)
{
	return stride_of(table, count) * slots * sizeof(int64_t);
}

void metrics_init(struct metrics *metrics, const struct metric *table,
	size_t count, size_t slots, size_t slot, void *memory)
{
	metrics->table = table;
	metrics->count = count;
	metrics->slots = slots;
	metrics->slot = slot;
	metrics->stride = stride_of(table, count);
	metrics->own =
		memory ? NULL
		       : xcalloc(metrics->stride * slots, sizeof(int64_t));
	metrics->values = memory ? memory : metrics->own;
}

void metrics_deinit(struct metrics *metrics)
{
	free(metrics->own);
	metrics->own = NULL;
	metrics->values = NULL;
}

static _Atomic int64_t *value_at(
	const struct metrics *metrics, size_t slot, size_t index)
{
	return &metrics->values[slot * metrics->stride + index];
}

static struct histogram *histogram_at(
	const struct metrics *metrics, size_t slot, size_t index)
{
	size_t n = histograms_before(metrics->table, index);

	return (struct histogram *)value_at(
		metrics, slot, metrics->count + n * HISTOGRAM_CELLS);
}

void metric_add(struct metrics *metrics, size_t index, int64_t n)
{
	atomic_fetch_add_explicit(value_at(metrics, metrics->slot, index), n,
		memory_order_relaxed);
}

void metric_set(struct metrics *metrics, size_t index, int64_t value)
{
	atomic_store_explicit(value_at(metrics, metrics->slot, index), value,
		memory_order_relaxed);
}

void metric_observe(struct metrics *metrics, size_t index, uint64_t value)
{
	histogram_add(histogram_at(metrics, metrics->slot, index),
		metrics->table[index].shape, value);
}

uint64_t metric_observed(
	const struct metrics *metrics, size_t slot, size_t index)
{
	return histogram_count(histogram_at(metrics, slot, index));
}

int64_t metric_get(const struct metrics *metrics, size_t index)
{
	int64_t sum = 0;

	for (size_t slot = 0; slot < metrics->slots; slot++)
		sum += atomic_load_explicit(
			value_at(metrics, slot, index), memory_order_relaxed);
	return sum;
}

void metrics_clear_gauges(struct metrics *metrics, size_t slot)
{
	for (size_t i = 0; i < metrics->count; i++) {
		if (metrics->table[i].gauge)
			atomic_store(value_at(metrics, slot, i), 0);
	}
}

static void put_histogram(
	FILE *out, const struct metrics *metrics, size_t index)
{
	const struct metric *m = &metrics->table[index];
	struct histogram sum = {0};

	for (size_t slot = 0; slot < metrics->slots; slot++)
		histogram_join(&sum, histogram_at(metrics, slot, index));
	histogram_text(
		out, &sum, m->shape, m->name, m->labels ? m->labels : "");
}

static void put_number(FILE *out, const struct metrics *metrics, size_t index)
{
	const struct metric *m = &metrics->table[index];

	fprintf(out, m->labels ? "%s{%s} " : "%s%s ", m->name,
		m->labels ? m->labels : "");
	fprintf(out, "%" PRId64 "\n", metric_get(metrics, index));
}

static const char *type_of(const struct metric *metric)
{
	if (metric->shape)
		return "histogram";
	return metric->gauge ? "gauge" : "counter";
}

char *metrics_text(const struct metrics *metrics)
{
	const char *last = "";
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return xstrdup("");
	for (size_t i = 0; i < metrics->count; i++) {
		const struct metric *m = &metrics->table[i];

		if (strcmp(m->name, last) != 0)
			fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", m->name,
				m->help ? m->help : "", m->name, type_of(m));
		last = m->name;
		if (m->shape)
			put_histogram(out, metrics, i);
		else
			put_number(out, metrics, i);
	}
	fclose(out);
	return text;
}
