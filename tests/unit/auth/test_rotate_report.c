/* SPDX-License-Identifier: Apache-2.0 */
/* How far a rotation has come, and what a finish would cut off. */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "auth/rotate.h"
#include "shared/alloc.h"
#include "shared/pki.h"

#define PROXY "12345678-9abc-4def-8123-456789abcdef"
#define AGENT "0a1b2c3d-0000-4000-8000-00000000000a"

struct fixture {
	struct authd auth;
	struct ca_pair cas;
	struct survey_host hosts[3];
	struct survey_users users[2];
	struct survey survey;
};

static struct ca make(void)
{
	struct ca ca = {.key = pki_key_new()};

	ca.cert = pki_ca_make(ca.key, "example host CA", 10);
	pki_spki_pin(ca.key, ca.pin, sizeof(ca.pin));
	return ca;
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->auth.cas = &f->cas;
	f->cas.host.active = make();
	f->cas.host.other = make();
	f->cas.host.state.phase = CA_ROTATING;
	f->cas.user.active = make();
	f->cas.user.other = make();
	f->cas.user.state.phase = CA_ROTATING;
	f->hosts[0] = (struct survey_host){
		.role = IDENTITY_PROXY, .uuid = PROXY, .online = true};
	f->hosts[1] = (struct survey_host){.role = IDENTITY_NODE,
		.uuid = AGENT,
		.name = "db-1",
		.online = true};
	f->hosts[2] = (struct survey_host){
		.role = IDENTITY_NODE, .uuid = AGENT, .name = "away"};
	strcpy(f->hosts[0].ca, f->cas.host.active.pin);
	strcpy(f->hosts[2].ca, f->cas.host.other.pin);
	strcpy(f->users[0].ca, f->cas.user.other.pin);
	strcpy(f->users[1].ca, f->cas.host.other.pin);
	f->survey = (struct survey){.hosts = f->hosts,
		.host_count = 3,
		.users = {&f->users[0], 1},
		.holders = {&f->users[1], 1}};
	*state = f;
	return 0;
}

static void drop(struct ca *ca)
{
	X509_free(ca->cert);
	EVP_PKEY_free(ca->key);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	drop(&f->cas.host.active);
	drop(&f->cas.host.other);
	drop(&f->cas.user.active);
	drop(&f->cas.user.other);
	free(f);
	return 0;
}

static json_int_t number(json_t *json, const char *who, const char *what)
{
	return json_integer_value(json_object_get(
		json_object_get(json_object_get(json, "host"), who), what));
}

static void progress_counts_and_names_who_remains(void **state)
{
	struct fixture *f = *state;
	json_t *json = rotate_json(&f->auth, &f->survey);
	json_t *remaining =
		json_object_get(json_object_get(json, "host"), "remaining");

	assert_int_equal(number(json, "proxies", "total"), 1);
	assert_int_equal(number(json, "proxies", "reissued"), 1);
	assert_int_equal(number(json, "agents", "total"), 2);
	assert_int_equal(number(json, "agents", "reissued"), 0);
	assert_int_equal(number(json, "agents", "online"), 1);
	/* a host of before these were written down, then who is away */
	assert_int_equal(json_array_size(remaining), 2);
	assert_string_equal("db-1",
		json_string_value(
			json_object_get(json_array_get(remaining, 0), "name")));
	json_decref(json);
}

static void who_is_away_for_good_is_not_waited_for(void **state)
{
	struct fixture *f = *state;
	json_t *json;

	f->hosts[2].not_after = 1000;
	json = rotate_json(&f->auth, &f->survey);
	assert_int_equal(number(json, "agents", "total"), 1);
	json_decref(json);
}

static void a_finish_waits_for_hosts_that_are_there(void **state)
{
	struct fixture *f = *state;
	char *text =
		rotate_objection(&f->cas, &f->survey, true, true, 1700000000);

	assert_non_null(strstr(text, "1 host has not"));
	assert_non_null(strstr(text, "agent db-1"));
	free(text);
	strcpy(f->hosts[1].ca, f->cas.host.active.pin);
	assert_null(
		rotate_objection(&f->cas, &f->survey, true, true, 1700000000));
}

static void a_finish_waits_for_users_certificates(void **state)
{
	struct fixture *f = *state;
	char *text;

	strcpy(f->hosts[1].ca, f->cas.host.active.pin);
	f->users[0].last = 1700000100;
	text = rotate_objection(&f->cas, &f->survey, true, true, 1700000000);
	assert_non_null(strstr(text, "the last until 2023-11-14T22:15:00Z"));
	free(text);
	assert_null(
		rotate_objection(&f->cas, &f->survey, true, false, 1700000000));
	assert_null(
		rotate_objection(&f->cas, &f->survey, true, true, 1700000100));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(progress_counts_and_names_who_remains),
		TEST(who_is_away_for_good_is_not_waited_for),
		TEST(a_finish_waits_for_hosts_that_are_there),
		TEST(a_finish_waits_for_users_certificates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
