/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <stdlib.h>

#include "shared/metrics.h"

static const struct metric table[] = {
	{"peerway_dials_total", "route=\"local\"", "dials by route", false},
	{"peerway_dials_total", "route=\"peer\"", NULL, false},
	{"peerway_tunnels", NULL, "tunnels that end here", true},
};

static void the_text_is_prometheus(void **state)
{
	struct metrics m = {0};
	char *text;

	metrics_init(&m, table, 3, 1, 0, NULL);
	metric_add(&m, 0, 2);
	metric_add(&m, 1, 1);
	metric_set(&m, 2, 7);
	text = metrics_text(&m);
	assert_string_equal(text,
		"# HELP peerway_dials_total dials by route\n"
		"# TYPE peerway_dials_total counter\n"
		"peerway_dials_total{route=\"local\"} 2\n"
		"peerway_dials_total{route=\"peer\"} 1\n"
		"# HELP peerway_tunnels tunnels that end here\n"
		"# TYPE peerway_tunnels gauge\n"
		"peerway_tunnels 7\n");
	free(text);
	metrics_deinit(&m);
}

static void workers_are_summed_and_the_dead_lose_their_gauges(void **state)
{
	void *memory = calloc(1, metrics_size(3, 2));
	struct metrics a = {0}, b = {0};

	metrics_init(&a, table, 3, 2, 0, memory);
	metrics_init(&b, table, 3, 2, 1, memory);
	metric_add(&a, 0, 1);
	metric_add(&b, 0, 2);
	metric_set(&a, 2, 10);
	metric_set(&b, 2, 20);
	assert_int_equal(metric_get(&a, 0), 3);
	assert_int_equal(metric_get(&a, 2), 30);
	metrics_clear_gauges(&a, 1);
	assert_int_equal(metric_get(&a, 0), 3);
	assert_int_equal(metric_get(&a, 2), 10);
	free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_text_is_prometheus),
		cmocka_unit_test(
			workers_are_summed_and_the_dead_lose_their_gauges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
