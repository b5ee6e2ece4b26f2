/* SPDX-License-Identifier: Apache-2.0 */
/* shared/histogram: what is added is found again in the text. */
#include "tests/unit/test.h"

#include <pthread.h>
#include <stdlib.h>

#include "shared/histogram.h"

static const struct histogram_shape sizes = {32, 1, 3, 1};
static const struct histogram_shape times = {1000, 2, 2, 1e-6};

static char *text_of(
	const struct histogram *h, const struct histogram_shape *shape)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	histogram_text(out, h, shape, "h", "a=\"b\"");
	fclose(out);
	return text;
}

static void a_value_counts_up_to_its_bound_and_above(void **state)
{
	struct histogram h = {0};
	char *text;

	histogram_add(&h, &sizes, 0);
	histogram_add(&h, &sizes, 32);
	histogram_add(&h, &sizes, 33);
	histogram_add(&h, &sizes, 128);
	histogram_add(&h, &sizes, 129);
	assert_int_equal(histogram_count(&h), 5);
	text = text_of(&h, &sizes);
	assert_string_equal(text, "h_bucket{a=\"b\",le=\"32\"} 2\n"
				  "h_bucket{a=\"b\",le=\"64\"} 3\n"
				  "h_bucket{a=\"b\",le=\"128\"} 4\n"
				  "h_bucket{a=\"b\",le=\"+Inf\"} 5\n"
				  "h_sum{a=\"b\"} 322\n"
				  "h_count{a=\"b\"} 5\n");
	free(text);
}

static void bounds_and_sum_are_in_the_base_unit(void **state)
{
	struct histogram h = {0};
	char *text;

	histogram_add(&h, &times, 1500);
	histogram_add(&h, &times, 5000000);
	text = text_of(&h, &times);
	assert_string_equal(text, "h_bucket{a=\"b\",le=\"0.001\"} 0\n"
				  "h_bucket{a=\"b\",le=\"0.004\"} 1\n"
				  "h_bucket{a=\"b\",le=\"+Inf\"} 2\n"
				  "h_sum{a=\"b\"} 5.0015\n"
				  "h_count{a=\"b\"} 2\n");
	free(text);
}

static void *add_many(void *arg)
{
	for (int i = 0; i < 100000; i++)
		histogram_add(arg, &sizes, 1);
	return NULL;
}

static void threads_lose_nothing(void **state)
{
	struct histogram h = {0};
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, add_many, &h);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(histogram_count(&h), 200000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_value_counts_up_to_its_bound_and_above),
		cmocka_unit_test(bounds_and_sum_are_in_the_base_unit),
		cmocka_unit_test(threads_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
