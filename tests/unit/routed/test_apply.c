/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of the watch's stream, and which records are fit to be kept. */
#include "tests/unit/test.h"

#include <string.h>

#include "routed/apply.h"

#define AGENT "aaaaaaaa-0000-4000-8000-000000000001"
#define PROXY "bbbbbbbb-0000-4000-8000-000000000001"

static Peerway__Auth__WatchResponse message(
	const char *store_id, uint64_t revision)
{
	Peerway__Auth__WatchResponse m = PEERWAY__AUTH__WATCH_RESPONSE__INIT;

	m.store_id = (char *)store_id;
	m.revision = revision;
	return m;
}

static enum apply_step next(struct apply *apply, Peerway__Auth__WatchResponse m)
{
	const char *reason = NULL;
	enum apply_step step = apply_next(apply, &m, &reason);

	assert_int_equal(step == APPLY_BROKEN, reason != NULL);
	return step;
}

static Peerway__Auth__WatchResponse part(uint64_t revision, bool complete)
{
	Peerway__Auth__WatchResponse m = message("store-1", revision);

	m.snapshot = true;
	m.complete = complete;
	return m;
}

static void a_snapshot_in_parts_sets_the_position_at_its_end(void **state)
{
	struct apply apply;

	apply_init(&apply, "", 0);
	assert_int_equal(next(&apply, part(7, false)), APPLY_GATHER);
	assert_int_equal(next(&apply, part(7, false)), APPLY_GATHER);
	assert_int_equal(apply.revision, 0);
	assert_string_equal(apply.store_id, "");
	assert_int_equal(next(&apply, part(7, true)), APPLY_REPLACE);
	assert_int_equal(apply.revision, 7);
	assert_string_equal(apply.store_id, "store-1");
}

static void changes_follow_in_order_and_known_ones_are_skipped(void **state)
{
	struct apply apply;

	apply_init(&apply, "store-1", 7);
	assert_int_equal(next(&apply, message("store-1", 9)), APPLY_CHANGES);
	assert_int_equal(next(&apply, message("store-1", 9)), APPLY_SKIP);
	assert_int_equal(next(&apply, message("store-1", 8)), APPLY_SKIP);
	assert_int_equal(next(&apply, message("store-1", 10)), APPLY_CHANGES);
	assert_int_equal(apply.revision, 10);
}

static void another_store_must_begin_with_a_snapshot(void **state)
{
	struct apply apply;

	apply_init(&apply, "store-0", 900);
	assert_int_equal(next(&apply, message("store-1", 901)), APPLY_BROKEN);
	apply_init(&apply, "store-0", 900);
	assert_int_equal(next(&apply, part(3, true)), APPLY_REPLACE);
	assert_int_equal(apply.revision, 3);
}

static void changes_amid_a_snapshot_break_the_stream(void **state)
{
	struct apply apply;

	apply_init(&apply, "store-1", 1);
	assert_int_equal(next(&apply, part(7, false)), APPLY_GATHER);
	assert_int_equal(next(&apply, message("store-1", 8)), APPLY_BROKEN);
}

static void a_store_id_must_be_of_use(void **state)
{
	char longer[65];
	struct apply apply;

	apply_init(&apply, "", 0);
	assert_int_equal(next(&apply, message("", 1)), APPLY_BROKEN);
	memset(longer, 'x', 64);
	longer[64] = '\0';
	assert_int_equal(next(&apply, message(longer, 1)), APPLY_BROKEN);
}

static bool fit(
	const char *agent, const char *name, const char *service, uint32_t port)
{
	Peerway__Record__TunnelRecord record =
		PEERWAY__RECORD__TUNNEL_RECORD__INIT;
	Peerway__Record__Service one = PEERWAY__RECORD__SERVICE__INIT;
	Peerway__Record__Service *services[] = {&one};
	Peerway__Auth__Change change = PEERWAY__AUTH__CHANGE__INIT;

	one.name = (char *)service;
	one.type = (char *)"node";
	one.port = port;
	record.agent_id = (char *)agent;
	record.proxy_id = (char *)PROXY;
	record.name = (char *)name;
	record.services = services;
	record.n_services = 1;
	change.what_case = PEERWAY__AUTH__CHANGE__WHAT_TUNNEL_PUT;
	change.tunnel_put = &record;
	return apply_is_fit(&change);
}

static void records_with_bad_ids_names_or_ports_are_unfit(void **state)
{
	assert_true(fit(AGENT, "db-1", "ssh", 22));
	assert_false(fit("agent", "db-1", "ssh", 22));
	assert_false(fit(AGENT, "DB.1", "ssh", 22));
	assert_false(fit(AGENT, "db-1", "", 22));
	assert_false(fit(AGENT, "db-1", "ssh", 65536));
}

static void a_change_of_a_newer_kind_is_unfit(void **state)
{
	Peerway__Auth__Change change = PEERWAY__AUTH__CHANGE__INIT;

	assert_false(apply_is_fit(&change));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_snapshot_in_parts_sets_the_position_at_its_end),
		cmocka_unit_test(
			changes_follow_in_order_and_known_ones_are_skipped),
		cmocka_unit_test(another_store_must_begin_with_a_snapshot),
		cmocka_unit_test(changes_amid_a_snapshot_break_the_stream),
		cmocka_unit_test(a_store_id_must_be_of_use),
		cmocka_unit_test(records_with_bad_ids_names_or_ports_are_unfit),
		cmocka_unit_test(a_change_of_a_newer_kind_is_unfit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
