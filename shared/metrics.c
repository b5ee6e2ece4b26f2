/* SPDX-License-Identifier: Apache-2.0 */
/* Counters, gauges and their Prometheus text: see metrics.h. */
#include "shared/metrics.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"

size_t metrics_size(size_t count, size_t slots)
{
	return count * slots * sizeof(int64_t);
}

void metrics_init(struct metrics *metrics, const struct metric *table,
	size_t count, size_t slots, size_t slot, void *memory)
{
	metrics->table = table;
	metrics->count = count;
	metrics->slots = slots;
	metrics->slot = slot;
	metrics->own = memory ? NULL : xcalloc(count * slots, sizeof(int64_t));
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
	return &metrics->values[slot * metrics->count + index];
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
				m->help ? m->help : "", m->name,
				m->gauge ? "gauge" : "counter");
		last = m->name;
		fprintf(out, m->labels ? "%s{%s} " : "%s%s ", m->name,
			m->labels ? m->labels : "");
		fprintf(out, "%" PRId64 "\n", metric_get(metrics, i));
	}
	fclose(out);
	return text;
}
