/* SPDX-License-Identifier: Apache-2.0 */
/* shared/log: lines that others cause are limited, and counted; JSON's fields.
 */
#include "tests/unit/test.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* What write() writes to stderr, up to size - 1 bytes. */
static void capture(void (*write)(void), bool json, char *text, size_t size)
{
	int ends[2], before = dup(STDERR_FILENO);

	assert_int_equal(pipe(ends), 0);
	dup2(ends[1], STDERR_FILENO);
	log_init("test", LOG_INFO, json);
	write();
	dup2(before, STDERR_FILENO);
	close(before);
	close(ends[1]);
	read_lines(ends[0], text, size);
	close(ends[0]);
}

static void flood_and_end(void)
{
	flood();
	log_end();
}

static void what_was_left_out_is_said_at_the_end(void **state)
{
	char text[16384];

	capture(flood_and_end, false, text, sizeof(text));
	assert_non_null(strstr(text, "lines left out: "));
	capture(log_end, false, text, sizeof(text));
	assert_string_equal(text, "");
}

static void to_the_journal(void)
{
	char own[64];
	struct stat st;

	fstat(STDERR_FILENO, &st);
	snprintf(own, sizeof(own), "%llu:%llu", (unsigned long long)st.st_dev,
		(unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", own, 1);
	log_init("test", LOG_INFO, false);
	log_warn("text");
	log_set_json(true);
	log_error("object");
	setenv("JOURNAL_STREAM", "1:1", 1);
	log_init("test", LOG_INFO, false);
	log_warn("elsewhere");
	unsetenv("JOURNAL_STREAM");
}

static void the_journal_gets_priorities_and_no_time(void **state)
{
	char text[4096], wanted[64];

	capture(to_the_journal, false, text, sizeof(text));
	snprintf(wanted, sizeof(wanted), "<4>warn test[%d]: text\n<3>{\"time\"",
		(int)getpid());
	assert_memory_equal(text, wanted, strlen(wanted));
	assert_non_null(strstr(text, "Z warn test["));
}

static void flood_and_more(void)
{
	flood();
	log_info("something else");
}

static void a_flood_is_a_few_lines(void **state)
{
	char text[16384];

	capture(flood_and_more, false, text, sizeof(text));
	assert_int_equal(count(text, "flood: n="), LOG_LIMIT_LINES);
	assert_int_equal(count(text, "something else"), 1);
}

/* The one line of write(): its message must be this; gives its fields. */
static json_t *fields_of(void (*write)(void), const char *message)
{
	char text[16384];
	json_error_t error;
	json_t *line, *fields;

	capture(write, true, text, sizeof(text));
	line = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	if (!line)
		fail_msg("%s: %s", error.text, text);
	if (message)
		assert_string_equal(
			json_string_value(json_object_get(line, "message")),
			message);
	fields = json_incref(json_object_get(line, "fields"));
	json_decref(line);
	return fields;
}

static void check_fields(
	void (*write)(void), const char *message, const char *wanted)
{
	json_t *fields = fields_of(write, message);
	char *text = json_dumps(fields, JSON_COMPACT);

	assert_string_equal(text, wanted);
	free(text);
	json_decref(fields);
}

static void session(void)
{
	log_info("ended: %s route=%s side=callee sent=%llu ms=%lld n=%04u "
		 "user=%s lease=%08llx to=%s:%d conn=%s",
		"why: a=b", "peer", 5ULL, -3LL, 7U, "x \"y\" conn=evil",
		0x12ULL, "echo", 7, "");
}

static void what_ends_the_format_are_fields(void **state)
{
	check_fields(session, "ended: why: a=b",
		"{\"route\":\"peer\",\"side\":\"callee\",\"sent\":5,\"ms\":-3,"
		"\"n\":\"0007\",\"user\":\"x \\\"y\\\" conn=evil\","
		"\"lease\":\"00000012\",\"to\":\"echo:7\",\"conn\":\"\"}");
}

static void without_facts(void)
{
	log_info("gone: status=%d; going on", 4);
}

static void a_fact_amid_the_text_is_text(void **state)
{
	check_fields(without_facts, "gone: status=4; going on", "{}");
}

static void after_text(void)
{
	errno = ENOENT;
	log_warn("cannot open: %m %s path=%s", "a=b", "/x");
}

static void what_others_say_adds_no_field(void **state)
{
	check_fields(after_text, "cannot open: No such file or directory a=b",
		"{\"path\":\"/x\"}");
}

static void long_value(void)
{
	char value[3000];

	memset(value, '"', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	log_info("long: text value=%s n=%d", value, 3);
}

static void cut_number(void)
{
	char text[2100];

	memset(text, 'x', sizeof(text));
	text[2037] = '\0';
	log_info("%s sent=%d", text, 123456);
}

static void facts_that_do_not_fit_stay_text(void **state)
{
	check_fields(cut_number, NULL, "{}");
	check_fields(long_value, NULL, "{}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_place_has_so_many_lines_in_a_time),
		cmocka_unit_test(a_flood_is_a_few_lines),
		cmocka_unit_test(what_was_left_out_is_said_at_the_end),
		cmocka_unit_test(the_journal_gets_priorities_and_no_time),
		cmocka_unit_test(what_ends_the_format_are_fields),
		cmocka_unit_test(a_fact_amid_the_text_is_text),
		cmocka_unit_test(what_others_say_adds_no_field),
		cmocka_unit_test(facts_that_do_not_fit_stay_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
