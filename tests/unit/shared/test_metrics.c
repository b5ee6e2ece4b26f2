/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <stdlib.h>

#include "shared/metrics.h"

static const struct histogram_shape shape = {
	.first = 10, .step = 1, .count = 2, .unit = 1};

static const struct metric timed[] = {
	{.name = "a_seconds",
		.labels = "x=\"1\"",
		.help = "a",
		.shape = &shape},
	{.name = "n_total", .help = "n"},
	{.name = "b_seconds", .help = "b", .shape = &shape},
};

static const struct metric table[] = {
	{"peerway_dials_total", "route=\"local\"", "dials by route", false,
		NULL},
	{"peerway_dials_total", "route=\"peer\"", NULL, false, NULL},
	{"peerway_tunnels", NULL, "tunnels that end here", true, NULL},
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
	void *memory = calloc(1, metrics_size(table, 3, 2));
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

static void histograms_are_summed_too(void **state)
{
	void *memory = calloc(1, metrics_size(timed, 3, 2));
	struct metrics a = {0}, b = {0};
	char *text;

	metrics_init(&a, timed, 3, 2, 0, memory);
	metrics_init(&b, timed, 3, 2, 1, memory);
	metric_observe(&a, 0, 5);
	metric_observe(&b, 0, 15);
	metric_observe(&b, 2, 100);
	metric_add(&b, 1, 3);
	assert_int_equal(metric_observed(&a, 0, 2), 0);
	assert_int_equal(metric_observed(&a, 1, 2), 1);
	text = metrics_text(&a);
	assert_string_equal(text,
		"# HELP a_seconds a\n# TYPE a_seconds histogram\n"
		"a_seconds_bucket{x=\"1\",le=\"10\"} 1\n"
		"a_seconds_bucket{x=\"1\",le=\"20\"} 2\n"
		"a_seconds_bucket{x=\"1\",le=\"+Inf\"} 2\n"
		"a_seconds_sum{x=\"1\"} 20\na_seconds_count{x=\"1\"} 2\n"
		"# HELP n_total n\n# TYPE n_total counter\nn_total 3\n"
		"# HELP b_seconds b\n# TYPE b_seconds histogram\n"
		"b_seconds_bucket{le=\"10\"} 0\n"
		"b_seconds_bucket{le=\"20\"} 0\n"
		"b_seconds_bucket{le=\"+Inf\"} 1\n"
		"b_seconds_sum 100\nb_seconds_count 1\n");
	free(text);
	free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_text_is_prometheus),
		cmocka_unit_test(histograms_are_summed_too),
		cmocka_unit_test(
			workers_are_summed_and_the_dead_lose_their_gauges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
