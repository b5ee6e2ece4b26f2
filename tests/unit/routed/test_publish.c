/* SPDX-License-Identifier: Apache-2.0 */
/* What workers report against what authd is told: coalescing, moves between
 * workers, lost batches, new leases, bounds. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "routed/publish.h"

#define PROXY "bbbbbbbb-0000-4000-8000-000000000001"
#define ONE "aaaaaaaa-0000-4000-8000-000000000001"
#define TWO "aaaaaaaa-0000-4000-8000-000000000002"
#define THREE "aaaaaaaa-0000-4000-8000-000000000003"

static int setup(void **state)
{
	*state = publish_new(PROXY, 1000);
	return 0;
}

static int teardown(void **state)
{
	publish_free(*state);
	return 0;
}

static int up(struct publish *p, uint64_t link, uint64_t id, const char *agent,
	const char *name, uint64_t since_ms)
{
	Peerway__Record__TunnelRecord record =
		PEERWAY__RECORD__TUNNEL_RECORD__INIT;

	record.agent_id = (char *)agent;
	record.proxy_id = (char *)"what the worker thinks";
	record.name = (char *)name;
	record.since_ms = since_ms;
	return publish_up(p, link, id, &record);
}

/* Takes a batch, checks its counts, ends it. */
static void say(struct publish *p, size_t put, size_t removed, bool stored)
{
	struct publish_batch batch;

	assert_true(publish_next(p, &batch));
	assert_int_equal(batch.put_count, put);
	assert_int_equal(batch.removed_count, removed);
	publish_done(p, &batch, stored);
}

static void silent(struct publish *p)
{
	struct publish_batch batch;

	assert_false(publish_next(p, &batch));
	assert_int_equal(publish_pending(p), 0);
}

static void a_tunnel_is_said_once_with_our_proxy_id(void **state)
{
	struct publish *p = *state;
	struct publish_batch batch;

	up(p, 1, 1, ONE, "one", 5);
	assert_int_equal(publish_pending(p), 1);
	assert_true(publish_next(p, &batch));
	assert_string_equal(batch.put[0]->proxy_id, PROXY);
	assert_string_equal(batch.put[0]->agent_id, ONE);
	publish_done(p, &batch, true);
	assert_int_equal(publish_published(p), 1);
	silent(p);
	up(p, 1, 1, ONE, "one", 5);
	silent(p);
	up(p, 1, 1, ONE, "uno", 5);
	say(p, 1, 0, true);
	publish_down(p, 1, 1);
	say(p, 0, 1, true);
	assert_int_equal(publish_published(p), 0);
	silent(p);
}

static void what_comes_and_goes_between_batches_is_never_said(void **state)
{
	struct publish *p = *state;

	up(p, 1, 1, ONE, "one", 5);
	publish_down(p, 1, 1);
	silent(p);
	up(p, 1, 2, ONE, "one", 5);
	say(p, 1, 0, true);
	publish_down(p, 1, 2);
	up(p, 1, 3, ONE, "one", 5);
	silent(p);
}

static void a_tunnel_moved_to_another_worker_is_no_deletion(void **state)
{
	struct publish *p = *state;
	struct publish_batch batch;

	up(p, 1, 1, ONE, "one", 5);
	up(p, 1, 2, TWO, "two", 5);
	say(p, 2, 0, true);
	up(p, 2, 1, ONE, "one", 6);
	publish_link_gone(p, 1);
	assert_true(publish_next(p, &batch));
	assert_int_equal(batch.put_count, 1);
	assert_int_equal(batch.put[0]->since_ms, 6);
	assert_int_equal(batch.removed_count, 1);
	assert_string_equal(batch.removed[0], TWO);
	publish_done(p, &batch, true);
	assert_int_equal(publish_published(p), 1);
}

static void the_newest_of_two_tunnels_is_the_one_said(void **state)
{
	struct publish *p = *state;
	struct publish_batch batch;

	up(p, 1, 1, ONE, "new", 9);
	up(p, 2, 1, ONE, "old", 3);
	assert_true(publish_next(p, &batch));
	assert_int_equal(batch.put_count, 1);
	assert_string_equal(batch.put[0]->name, "new");
	publish_done(p, &batch, true);
	publish_down(p, 1, 1);
	assert_true(publish_next(p, &batch));
	assert_string_equal(batch.put[0]->name, "old");
	publish_done(p, &batch, true);
}

static void a_full_list_withdraws_what_it_lacks(void **state)
{
	struct publish *p = *state;

	up(p, 1, 1, ONE, "one", 5);
	up(p, 1, 2, TWO, "two", 5);
	say(p, 2, 0, true);
	publish_sync_begin(p, 1);
	up(p, 1, 2, TWO, "two", 5);
	silent(p); /* nothing is withdrawn before the list's end */
	publish_sync_end(p, 1);
	say(p, 0, 1, true);
	assert_int_equal(publish_published(p), 1);
}

static void a_lost_batch_is_said_again_as_things_stand_then(void **state)
{
	struct publish *p = *state;
	struct publish_batch batch;

	up(p, 1, 1, ONE, "one", 5);
	up(p, 1, 2, TWO, "two", 5);
	assert_true(publish_next(p, &batch));
	publish_down(p, 1, 1);
	publish_done(p, &batch, false);
	/* ONE may have been stored or not, so its end is said in any case */
	say(p, 1, 1, true);
	assert_int_equal(publish_published(p), 1);
	silent(p);
}

static void a_change_during_a_batch_is_in_the_next(void **state)
{
	struct publish *p = *state;
	struct publish_batch batch;

	up(p, 1, 1, ONE, "one", 5);
	assert_true(publish_next(p, &batch));
	publish_down(p, 1, 1);
	publish_done(p, &batch, true);
	assert_int_equal(publish_pending(p), 1);
	say(p, 0, 1, true);
	silent(p);
}

static void a_new_lease_has_everything_said_anew(void **state)
{
	struct publish *p = *state;

	up(p, 1, 1, ONE, "one", 5);
	up(p, 1, 2, TWO, "two", 5);
	say(p, 2, 0, true);
	publish_down(p, 1, 1);
	publish_reset(p);
	assert_int_equal(publish_published(p), 0);
	/* the record of ONE ends with the lease it hangs on */
	say(p, 1, 0, true);
	silent(p);
}

static void a_refused_record_does_not_keep_others_back(void **state)
{
	struct publish *p = *state;
	struct publish_batch batch;

	up(p, 1, 1, ONE, "bad", 5);
	up(p, 1, 2, TWO, "good", 5);
	assert_true(publish_next(p, &batch));
	assert_false(publish_refused(p, &batch));
	for (int i = 0; i < 2; i++) {
		assert_true(publish_next(p, &batch));
		assert_int_equal(batch.put_count, 1);
		if (strcmp(batch.put[0]->name, "bad") == 0)
			assert_true(publish_refused(p, &batch));
		else
			publish_done(p, &batch, true);
	}
	silent(p);
	assert_int_equal(publish_published(p), 1);
	up(p, 1, 1, ONE, "better", 5);
	up(p, 1, 3, THREE, "third", 5);
	say(p, 2, 0, true);
	assert_int_equal(publish_published(p), 3);
}

static void batches_and_tables_have_bounds(void **state)
{
	struct publish *p = *state;
	char agent[37];
	size_t said = 0;
	int i;

	for (i = 0; i < 1000; i++) {
		snprintf(agent, sizeof(agent), "aaaaaaaa-0000-4000-8000-%012d",
			i);
		assert_int_equal(up(p, 1, i, agent, "many", 5), 0);
	}
	assert_int_equal(up(p, 1, i, ONE, "one", 5), -ENOSPC);
	while (publish_pending(p) > 0) {
		struct publish_batch batch;

		assert_true(publish_next(p, &batch));
		assert_true(batch.put_count <= PUBLISH_BATCH_MAX);
		said += batch.put_count;
		publish_done(p, &batch, true);
	}
	assert_int_equal(said, 1000);
	publish_link_gone(p, 1);
	assert_int_equal(publish_pending(p), 1000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void each_is_asked_to_move_once_in_a_while(void **state)
{
	struct publish *p = *state;
	struct publish_tunnel first, second;

	assert_false(publish_next_unasked(p, 100, &first));
	up(p, 1, 1, ONE, "one", 1);
	up(p, 2, 7, TWO, "two", 1);
	assert_true(publish_next_unasked(p, 100, &first));
	publish_set_asked(p, first.link, first.tunnel_id, 200);
	assert_true(publish_next_unasked(p, 100, &second));
	assert_string_not_equal(first.agent_id, second.agent_id);
	publish_set_asked(p, second.link, second.tunnel_id, 300);
	assert_false(publish_next_unasked(p, 100, &first));
	assert_int_equal(publish_asked(p, 100), 2);
	assert_int_equal(publish_asked(p, 250), 1);
	assert_true(publish_next_unasked(p, 250, &first));
	publish_down(p, second.link, second.tunnel_id);
	assert_int_equal(publish_asked(p, 250), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_tunnel_is_said_once_with_our_proxy_id),
		TEST(what_comes_and_goes_between_batches_is_never_said),
		TEST(a_tunnel_moved_to_another_worker_is_no_deletion),
		TEST(the_newest_of_two_tunnels_is_the_one_said),
		TEST(a_full_list_withdraws_what_it_lacks),
		TEST(a_lost_batch_is_said_again_as_things_stand_then),
		TEST(a_change_during_a_batch_is_in_the_next),
		TEST(a_new_lease_has_everything_said_anew),
		TEST(a_refused_record_does_not_keep_others_back),
		TEST(each_is_asked_to_move_once_in_a_while),
		TEST(batches_and_tables_have_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
