/* SPDX-License-Identifier: Apache-2.0 */
/* shared/log: lines that others cause are limited, and counted. */
#include "tests/unit/test.h"

#include <string.h>
#include <unistd.h>

#include "shared/log.h"

static void a_place_has_so_many_lines_in_a_time(void **state)
{
	struct log_limit limit = {.level = LOG_WARN};
	int64_t now = 1000;

	for (int i = 0; i < LOG_LIMIT_LINES; i++)
		assert_true(log_limit_take(&limit, now + i));
	assert_false(log_limit_take(&limit, now + LOG_LIMIT_MS - 1));
	assert_false(log_limit_take(&limit, now + LOG_LIMIT_MS - 1));
	assert_int_equal(limit.left_out, 2);
	assert_true(log_limit_take(&limit, now + LOG_LIMIT_MS));
}

/* What was written to stderr meanwhile. */
static void read_lines(int fd, char *text, size_t size)
{
	ssize_t n = read(fd, text, size - 1);

	text[n > 0 ? n : 0] = '\0';
}

static unsigned count(const char *text, const char *what)
{
	unsigned n = 0;

	while ((text = strstr(text, what))) {
		n++;
		text++;
	}
	return n;
}

static void flood(void)
{
	for (int i = 0; i < 1000; i++)
		log_limited(LOG_WARN, "flood: n=%d", i);
}

static void a_flood_is_a_few_lines(void **state)
{
	char text[16384];
	int ends[2], before = dup(STDERR_FILENO);

	assert_int_equal(pipe(ends), 0);
	dup2(ends[1], STDERR_FILENO);
	log_init("test", LOG_INFO, false);
	flood();
	log_info("something else");
	dup2(before, STDERR_FILENO);
	close(before);
	read_lines(ends[0], text, sizeof(text));
	assert_int_equal(count(text, "flood: n="), LOG_LIMIT_LINES);
	assert_int_equal(count(text, "something else"), 1);
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_place_has_so_many_lines_in_a_time),
		cmocka_unit_test(a_flood_is_a_few_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
