/* SPDX-License-Identifier: Apache-2.0 */
/* shared/process_metrics: what a process tells of itself. */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/process_metrics.h"

static double read_metric(const char *name)
{
	char *text = process_metrics_text();
	char *wanted = xasprintf("\n%s ", name);
	const char *line = strstr(text, wanted);
	double value;

	assert_non_null(line);
	value = atof(line + strlen(wanted));
	free(wanted);
	free(text);
	return value;
}

static void open_descriptors_are_counted(void **state)
{
	double before = read_metric("process_open_fds");
	int fd = dup(0);

	assert_true(before >= 3);
	assert_true(fd >= 0);
	assert_true(read_metric("process_open_fds") == before + 1);
	close(fd);
	assert_true(read_metric("process_open_fds") == before);
	assert_true(read_metric("process_max_fds") > before);
}

static void the_start_is_now_and_memory_is_used(void **state)
{
	double age =
		(double)time(NULL) - read_metric("process_start_time_seconds");

	assert_true(age > -2 && age < 300);
	assert_true(read_metric("process_resident_memory_bytes") > 100000);
	assert_true(read_metric("process_cpu_seconds_total") >= 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(open_descriptors_are_counted),
		cmocka_unit_test(the_start_is_now_and_memory_is_used),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
