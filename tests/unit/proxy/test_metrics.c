/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/metrics.h"

static void test_every_series_is_described(void **state)
{
	(void)state;
	for (size_t i = 0; i < PROXY_METRICS; i++) {
		const struct metric *metric = &proxy_metrics[i];
		bool first = i == 0 ||
			     strcmp(metric->name, proxy_metrics[i - 1].name);

		assert_non_null(metric->name);
		/* one is the same in every daemon */
		if (i != PROXY_LAG)
			assert_memory_equal(metric->name, "peerway_proxy_", 14);
		assert_int_equal(first, metric->help != NULL);
		if (metric->shape)
			assert_non_null(strstr(metric->name, "_seconds"));
		else if (!metric->gauge)
			assert_non_null(strstr(metric->name, "_total"));
		/* series of one name stand together */
		for (size_t k = 0; first && k < i; k++)
			assert_string_not_equal(
				metric->name, proxy_metrics[k].name);
	}
}

static void check_code(Peerway__Ipc__DialCode code, const char *outcome)
{
	const struct metric *metric =
		&proxy_metrics[proxy_metric_of_code(code)];

	assert_non_null(strstr(metric->labels, outcome));
}

static void test_codes_and_routes_have_their_series(void **state)
{
	(void)state;
	check_code(PEERWAY__IPC__DIAL_CODE__DIAL_NOT_FOUND, "\"not_found\"");
	check_code(PEERWAY__IPC__DIAL_CODE__DIAL_DENIED, "\"denied\"");
	check_code(PEERWAY__IPC__DIAL_CODE__DIAL_REFUSED, "\"refused\"");
	check_code(PEERWAY__IPC__DIAL_CODE__DIAL_OFFLINE, "\"offline\"");
	check_code(PEERWAY__IPC__DIAL_CODE__DIAL_TIMED_OUT, "\"timed_out\"");
	check_code(PEERWAY__IPC__DIAL_CODE__DIAL_INVALID, "\"invalid\"");
	check_code(PEERWAY__IPC__DIAL_CODE__DIAL_INTERNAL, "\"internal\"");
	check_code(PEERWAY__IPC__DIAL_CODE__DIAL_CODE_NONE, "\"internal\"");
	check_code((Peerway__Ipc__DialCode)77, "\"internal\"");
	assert_int_equal(
		proxy_metric_of_route(PEERWAY__IPC__ROUTE__ROUTE_LOCAL),
		PROXY_DIAL_LOCAL);
	assert_int_equal(
		proxy_metric_of_route(PEERWAY__IPC__ROUTE__ROUTE_SIBLING),
		PROXY_DIAL_SIBLING);
	assert_int_equal(proxy_metric_of_route(PEERWAY__IPC__ROUTE__ROUTE_PEER),
		PROXY_DIAL_PEER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_series_is_described),
		cmocka_unit_test(test_codes_and_routes_have_their_series),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
