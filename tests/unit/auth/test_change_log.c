/* SPDX-License-Identifier: Apache-2.0 */
/* The last changes in memory: in order, complete, bounded. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <string.h>

#include "auth/change_log.h"

static void add(struct change_log *log, uint64_t revision, const char *key)
{
	struct backend_event event = {
		.key = key, .value = (const uint8_t *)"value", .len = 5};

	change_log_add(log, revision, &event, 1);
}

static void an_empty_log_begins_behind_its_base(void **state)
{
	struct change_log *log = change_log_new(7, 1000);

	assert_int_equal(8, change_log_first(log));
	assert_int_equal(7, change_log_last(log));
	assert_null(change_log_from(log, 1));
	change_log_free(log);
}

static void entries_are_found_by_revision(void **state)
{
	struct change_log *log = change_log_new(7, 10000);
	const struct change_log_entry *entry;

	add(log, 9, "a");
	add(log, 12, "b");
	add(log, 13, "c");
	entry = change_log_from(log, 1);
	assert_int_equal(9, entry->revision);
	assert_string_equal("a", entry->events[0].key);
	assert_memory_equal("value", entry->events[0].value, 6);
	assert_int_equal(12, change_log_from(log, 10)->revision);
	assert_int_equal(13, change_log_from(log, 13)->revision);
	assert_null(change_log_from(log, 14));
	assert_int_equal(8, change_log_first(log));
	assert_int_equal(13, change_log_last(log));
	change_log_free(log);
}

static void a_deletion_and_a_revision_without_events_are_kept(void **state)
{
	struct change_log *log = change_log_new(1, 10000);
	struct backend_event gone = {.key = "k"};

	change_log_add(log, 2, &gone, 1);
	change_log_add(log, 3, NULL, 0);
	assert_null(change_log_from(log, 2)->events[0].value);
	assert_int_equal(0, change_log_from(log, 3)->count);
	change_log_free(log);
}

static void the_front_is_forgotten(void **state)
{
	struct change_log *log = change_log_new(0, 1000);
	char key[16];

	for (uint64_t revision = 1; revision <= 5000; revision++) {
		const struct change_log_entry *entry;

		snprintf(
			key, sizeof(key), "%llu", (unsigned long long)revision);
		add(log, revision, key);
		assert_true(change_log_bytes(log) <= 1000);
		/* complete from the first that is said to be there */
		entry = change_log_from(log, 0);
		assert_int_equal(change_log_first(log), entry->revision);
		entry = change_log_from(log, revision);
		assert_string_equal(key, entry->events[0].key);
	}
	assert_true(change_log_first(log) > 4900);
	change_log_free(log);
}

static void what_is_compacted_is_forgotten(void **state)
{
	struct change_log *log = change_log_new(1, 10000);

	add(log, 2, "a");
	add(log, 4, "b");
	change_log_forget(log, 3);
	assert_int_equal(4, change_log_first(log));
	assert_int_equal(4, change_log_from(log, 1)->revision);
	change_log_forget(log, 4);
	assert_null(change_log_from(log, 1));
	assert_int_equal(5, change_log_first(log));
	assert_int_equal(4, change_log_last(log));
	change_log_forget(log, 2);
	assert_int_equal(5, change_log_first(log));
	change_log_free(log);
}

static void the_last_entry_stays_however_large(void **state)
{
	struct change_log *log = change_log_new(0, 10);

	add(log, 1, "a");
	add(log, 2, "b");
	assert_int_equal(2, change_log_first(log));
	assert_int_equal(2, change_log_from(log, 1)->revision);
	change_log_free(log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_log_begins_behind_its_base),
		cmocka_unit_test(entries_are_found_by_revision),
		cmocka_unit_test(
			a_deletion_and_a_revision_without_events_are_kept),
		cmocka_unit_test(the_front_is_forgotten),
		cmocka_unit_test(what_is_compacted_is_forgotten),
		cmocka_unit_test(the_last_entry_stays_however_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
