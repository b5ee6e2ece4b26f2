/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/tunnels: the newest tunnel counts, a worker's end takes its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "peerd/tunnels.h"

static Peerway__Record__TunnelRecord record(const char *agent, uint64_t since)
{
	Peerway__Record__TunnelRecord record =
		PEERWAY__RECORD__TUNNEL_RECORD__INIT;

	record.agent_id = (char *)agent;
	record.since_ms = since;
	return record;
}

static bool put(struct tunnels *tunnels, uint64_t link, uint64_t id,
	const char *agent, uint64_t since, struct tunnel_ref *loser)
{
	Peerway__Record__TunnelRecord r = record(agent, since);

	return tunnels_put(tunnels, link, id, &r, "192.0.2.1:5", loser);
}

static void the_newest_of_an_agent_counts(void **state)
{
	struct tunnels *tunnels = tunnels_new();
	struct tunnel_ref loser = {0};

	assert_false(put(tunnels, 1, 10, "a", 100, &loser));
	assert_true(put(tunnels, 2, 10, "a", 200, &loser));
	assert_int_equal(loser.link, 1);
	assert_int_equal(loser.tunnel_id, 10);
	assert_int_equal(tunnels_find(tunnels, "a")->link, 2);
	/* one that comes late, from a worker's list, but is older */
	assert_true(put(tunnels, 3, 1, "a", 150, &loser));
	assert_int_equal(loser.link, 3);
	assert_int_equal(tunnels_find(tunnels, "a")->link, 2);
	/* of the same millisecond the later report counts */
	assert_true(put(tunnels, 4, 1, "a", 200, &loser));
	assert_int_equal(loser.link, 2);
	assert_int_equal(tunnels_find(tunnels, "a")->link, 4);
	tunnels_free(tunnels);
}

static void an_older_one_serves_when_the_newest_ends(void **state)
{
	struct tunnels *tunnels = tunnels_new();
	struct tunnel_ref loser;

	put(tunnels, 1, 10, "a", 100, &loser);
	put(tunnels, 2, 10, "a", 200, &loser);
	tunnels_remove(tunnels, 2, 10);
	assert_int_equal(tunnels_find(tunnels, "a")->link, 1);
	tunnels_remove(tunnels, 1, 11); /* unknown: nothing happens */
	assert_int_equal(tunnels_count(tunnels, 0), 1);
	tunnels_remove(tunnels, 1, 10);
	assert_null(tunnels_find(tunnels, "a"));
	assert_int_equal(tunnels_count(tunnels, 0), 0);
	tunnels_free(tunnels);
}

static void a_changed_record_is_no_second_tunnel(void **state)
{
	struct tunnels *tunnels = tunnels_new();
	struct tunnel_ref loser;
	Peerway__Record__TunnelRecord r = record("a", 100);

	put(tunnels, 1, 10, "a", 100, &loser);
	r.name = (char *)"renamed";
	assert_false(tunnels_put(tunnels, 1, 10, &r, "x", &loser));
	assert_string_equal(
		tunnels_find(tunnels, "a")->record->name, "renamed");
	assert_int_equal(tunnels_count(tunnels, 0), 1);
	/* the same number for another agent: the first one must be gone */
	assert_false(put(tunnels, 1, 10, "b", 100, &loser));
	assert_null(tunnels_find(tunnels, "a"));
	tunnels_free(tunnels);
}

static void a_worker_that_goes_takes_its_own(void **state)
{
	struct tunnels *tunnels = tunnels_new();
	struct tunnel_ref loser;

	for (uint64_t i = 0; i < 200; i++) {
		char agent[16];

		snprintf(agent, sizeof(agent), "agent-%03d", (int)i);
		put(tunnels, 1 + i % 2, i, agent, 100, &loser);
	}
	assert_int_equal(tunnels_count(tunnels, 1), 100);
	tunnels_remove_link(tunnels, 1);
	assert_int_equal(tunnels_count(tunnels, 0), 100);
	assert_null(tunnels_find(tunnels, "agent-000"));
	assert_non_null(tunnels_find(tunnels, "agent-001"));
	tunnels_free(tunnels);
}

static const char *seen[4];
static int seen_count;

static void see(void *arg, const struct tunnel_entry *entry)
{
	seen[seen_count++] = entry->record->agent_id;
}

static void each_agent_is_listed_once_in_order(void **state)
{
	struct tunnels *tunnels = tunnels_new();
	struct tunnel_ref loser;

	put(tunnels, 1, 1, "b", 100, &loser);
	put(tunnels, 1, 2, "a", 100, &loser);
	put(tunnels, 2, 1, "a", 200, &loser);
	tunnels_each(tunnels, see, NULL);
	assert_int_equal(seen_count, 2);
	assert_string_equal(seen[0], "a");
	assert_string_equal(seen[1], "b");
	tunnels_free(tunnels);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_newest_of_an_agent_counts),
		cmocka_unit_test(an_older_one_serves_when_the_newest_ends),
		cmocka_unit_test(a_changed_record_is_no_second_tunnel),
		cmocka_unit_test(a_worker_that_goes_takes_its_own),
		cmocka_unit_test(each_agent_is_listed_once_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
