/* SPDX-License-Identifier: Apache-2.0 */
/* peerctl/status_problems: what of the daemons' answers needs eyes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "peerctl/status.h"

#define NOW 1800000000 /* 2027-01-15T08:00:00Z */

static json_t *parse(const char *text)
{
	json_t *json = json_loads(text, 0, NULL);

	assert_non_null(json);
	return json;
}

static void expect_summary(const char *peers, const char *expected)
{
	json_t *json = parse(peers);
	char *text = status_summary(json);

	assert_string_equal(text, expected);
	free(text);
	json_decref(json);
}

/* The one problem of an answer, or none at all when expected is NULL. */
static void expect(int which, const char *answer, const char *expected)
{
	struct answers answers = {0};
	json_t *problems;

	answers.of[which] = parse(answer);
	problems = status_problems(&answers, NOW);
	assert_int_equal(json_array_size(problems), expected ? 1 : 0);
	if (expected)
		assert_string_equal(
			json_string_value(json_array_get(problems, 0)),
			expected);
	json_decref(problems);
	json_decref(answers.of[which]);
}

static void the_summary_counts_states_good_ones_first(void **state)
{
	expect_summary("[]", "no peers");
	expect_summary("[{\"state\":\"ready\"}]", "1 peer: 1 ready");
	expect_summary("[{\"state\":\"unreachable\"},{\"state\":\"ready\"},"
		       "{\"state\":\"ready\"}]",
		"3 peers: 2 ready, 1 unreachable");
}

static void peers_in_trouble_come_first_then_names(void **state)
{
	json_t *peers =
		parse("[{\"hostname\":\"a\",\"state\":\"ready\"},"
		      "{\"hostname\":\"c\",\"state\":\"unreachable\"},"
		      "{\"hostname\":\"b\",\"state\":\"unreachable\"}]");
	json_t *sorted = status_sorted(peers);
	const char *const names[] = {"b", "c", "a"};

	for (size_t i = 0; i < 3; i++)
		assert_string_equal(
			status_text(json_array_get(sorted, i), "hostname"),
			names[i]);
	json_decref(sorted);
	json_decref(peers);
}

static void a_host_that_is_well_has_no_problems(void **state)
{
	expect(PEERD,
		"{\"routed\":true,\"draining\":false,\"peers\":["
		"{\"hostname\":\"a\",\"state\":\"ready\"},"
		"{\"hostname\":\"b\",\"state\":\"draining\"}],"
		"\"identity\":{\"not_after\":\"2027-01-25T08:00:00Z\"}}",
		NULL);
	expect(ROUTED, "{\"auth_state\":\"connected\",\"last_error\":null}",
		NULL);
}

static void each_problem_is_said_with_its_reason(void **state)
{
	expect(ROUTED,
		"{\"auth_state\":\"unreachable\",\"auth_server\":\"auth:3025\","
		"\"last_error\":\"no route\"}",
		"authd auth:3025 is unreachable: no route");
	expect(AUTHD,
		"{\"store\":{\"failing\":true,\"failing_s\":61,"
		"\"problem\":\"etcd: no leader\"}}",
		"authd's store is away for 1m1s: etcd: no leader");
	expect(AUTHD,
		"{\"store\":{\"failing\":false,\"problem\":\"\"},"
		"\"strategy\":{\"disagreement\":\"another one\"}}",
		"tunnel_strategy: another one");
	expect(PEERD,
		"{\"peers\":[{\"hostname\":\"b\",\"id\":\"0123456789\","
		"\"state\":\"unreachable\",\"since_s\":12,"
		"\"last_error\":\"no answer\"}]}",
		"peer b (01234567) is unreachable for 12s: no answer");
	expect(PEERD,
		"{\"duplicate_peer_addrs\":[{\"addr\":\"x:1\",\"proxies\":["
		"{\"id\":\"0123456789\",\"hostname\":\"a\"},"
		"{\"id\":\"9876543210\",\"hostname\":\"b\"}]}]}",
		"x:1 is the peer address of a (01234567), b (98765432): make "
		"peer_public_addr unique");
	expect(PEERD, "{\"draining\":true}", "peerd is draining: it will stop");
	expect(PEERD, "{\"routed\":false}", "peerd has no link to routed");
}

static void a_certificate_that_ends_soon_or_has_ended_is_told(void **state)
{
	expect(PEERD, "{\"identity\":{\"not_after\":\"2027-01-16T08:00:00Z\"}}",
		"the certificate of peerd ends in 1d0h");
	expect(PEERD, "{\"identity\":{\"not_after\":\"2027-01-15T07:59:00Z\"}}",
		"the certificate of peerd ended 1m0s ago");
}

static void a_daemon_that_is_away_is_told(void **state)
{
	struct answers answers = {0};
	char why[] = "not there";
	json_t *problems;

	answers.error[ROUTED] = why;
	problems = status_problems(&answers, NOW);
	assert_string_equal(json_string_value(json_array_get(problems, 0)),
		"routed is away: not there");
	json_decref(problems);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_summary_counts_states_good_ones_first),
		cmocka_unit_test(peers_in_trouble_come_first_then_names),
		cmocka_unit_test(a_host_that_is_well_has_no_problems),
		cmocka_unit_test(each_problem_is_said_with_its_reason),
		cmocka_unit_test(
			a_certificate_that_ends_soon_or_has_ended_is_told),
		cmocka_unit_test(a_daemon_that_is_away_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
