/* SPDX-License-Identifier: Apache-2.0 */
/* The table of what each verb does in each phase, and the phase as stored. */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "auth/ca_phase.h"

static void every_verb_in_every_phase(void **state)
{
	static const struct {
		enum ca_phase phase;
		enum ca_verb verb;
		enum ca_action action;
	} rows[] = {
		{CA_STANDBY, CA_START, CA_MAKE},
		{CA_STANDBY, CA_FINISH, CA_NOTHING},
		{CA_STANDBY, CA_ROLLBACK, CA_REFUSED},
		{CA_ROTATING, CA_START, CA_NOTHING},
		{CA_ROTATING, CA_FINISH, CA_DROP_FIRST},
		{CA_ROTATING, CA_ROLLBACK, CA_USE_FIRST},
		{CA_ROLLING_BACK, CA_START, CA_USE_SECOND},
		{CA_ROLLING_BACK, CA_FINISH, CA_DROP_SECOND},
		{CA_ROLLING_BACK, CA_ROLLBACK, CA_NOTHING},
	};

	assert_int_equal(sizeof(rows) / sizeof(rows[0]), CA_PHASES * CA_VERBS);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(ca_phase_next(rows[i].phase, rows[i].verb),
			rows[i].action);
}

static void a_state_is_read_as_it_was_written(void **state)
{
	for (int phase = 0; phase < CA_PHASES; phase++) {
		struct ca_state in = {(enum ca_phase)phase, 1700000000, 4000};
		struct ca_state out = {0};
		char *text = ca_state_encode(&in);

		assert_int_equal(ca_state_decode(text, strlen(text), &out), 0);
		assert_int_equal(out.phase, phase);
		assert_int_equal(out.since, in.since);
		assert_int_equal(out.spread_ms, in.spread_ms);
		free(text);
	}
}

static void what_is_no_state_is_refused(void **state)
{
	static const char *const texts[] = {
		"",
		"{}",
		"{\"phase\":\"away\",\"since\":1,\"spread_ms\":1}",
		"{\"phase\":\"rotating\",\"since\":1,\"spread_ms\":-1}",
		"{\"phase\":\"rotating\",\"since\":\"now\",\"spread_ms\":1}",
	};
	struct ca_state out;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_true(
			ca_state_decode(texts[i], strlen(texts[i]), &out) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_verb_in_every_phase),
		cmocka_unit_test(a_state_is_read_as_it_was_written),
		cmocka_unit_test(what_is_no_state_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
