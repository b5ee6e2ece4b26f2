/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/registration.h"

#define UUID "0a1b2c3d-0000-4000-8000-00000000000a"
#define HEAD "\"agent_id\":\"" UUID "\",\"name\":\"db-1\""

static void refused(const char *text, const char *want)
{
	char *error = NULL;
	struct registration *got =
		registration_from_json(text, strlen(text), &error);

	if (got)
		fail_msg("not refused: %s", text);
	assert_string_equal(error, want);
	free(error);
}

static void test_comes_back_as_it_was(void **state)
{
	struct registration_label labels[] = {
		{"env", "staging"}, {"owner", "ann \"the\" dba"}};
	struct registration_service services[] = {
		{"ssh", "node", 22}, {"pg", "db", 5432}};
	struct registration out = {.agent_id = UUID,
		.name = "db-1",
		.labels = labels,
		.label_count = 2,
		.services = services,
		.service_count = 2};
	char *text = registration_to_json(&out);
	char *error = NULL;
	struct registration *in =
		registration_from_json(text, strlen(text), &error);

	assert_non_null(in);
	assert_string_equal(in->agent_id, UUID);
	assert_string_equal(in->name, "db-1");
	assert_int_equal(in->label_count, 2);
	assert_string_equal(in->labels[1].value, "ann \"the\" dba");
	assert_int_equal(in->service_count, 2);
	assert_int_equal(registration_find(in, "pg")->port, 5432);
	assert_string_equal(registration_find(in, "ssh")->type, "node");
	assert_null(registration_find(in, "web"));
	assert_null(strchr(text, '\n')); /* one line of the events stream */
	registration_free(in);
	free(text);
}

static void test_labels_and_services_may_be_absent(void **state)
{
	const char text[] = "{" HEAD ",\"more\":[1,{}]}";
	char *error = NULL;
	struct registration *in =
		registration_from_json(text, strlen(text), &error);

	assert_non_null(in);
	assert_int_equal(in->label_count, 0);
	assert_int_equal(in->service_count, 0);
	assert_null(registration_find(in, "ssh"));
	registration_free(in);
}

static void test_refused_with_the_place(void **state)
{
	refused("[]", "is not a JSON object");
	refused("{" HEAD, "line 1: '}' expected near end of file");
	refused("{" HEAD "} x", "line 1: end of file expected near 'x'");
	refused("{\"name\":\"db-1\"}", "agent_id: is missing");
	refused("{\"agent_id\":7,\"name\":\"db-1\"}",
		"agent_id: is not a string");
	refused("{\"agent_id\":\"x\",\"name\":\"db-1\"}",
		"agent_id: is not a uuid");
	refused("{\"agent_id\":\"" UUID "0\",\"name\":\"db-1\"}",
		"agent_id: is longer than 36 bytes");
	refused("{\"agent_id\":\"" UUID "\"}", "name: is missing");
	refused("{\"agent_id\":\"" UUID "\",\"name\":\"Db.1\"}",
		"name: is not a name of a-z, 0-9 and - (1 to 63)");
	refused("{" HEAD ",\"name\":\"b\"}",
		"line 1: duplicate object key near '\"name\"'");
	refused("{" HEAD ",\"labels\":[]}", "labels: is not an object");
	refused("{" HEAD ",\"labels\":{\"a\":1}}", "labels.a: is not a string");
	refused("{" HEAD ",\"labels\":{\"\":\"1\"}}",
		"labels: has an empty name");
	refused("{" HEAD ",\"labels\":{\"a\":\"b\\n\"}}",
		"labels.a: has a control character");
	refused("{" HEAD ",\"services\":{}}", "services: is not a list");
	refused("{" HEAD ",\"services\":[1]}", "services[0]: is not an object");
	refused("{" HEAD ",\"services\":[{}]}", "services[0].name: is missing");
	refused("{" HEAD ",\"services\":[{\"name\":\"a.b\"}]}",
		"services[0].name: is not a name of a-z, 0-9 and - (1 to 63)");
	refused("{" HEAD ",\"services\":[{\"name\":\"a\"}]}",
		"services[0].type: is missing");
	refused("{" HEAD ",\"services\":[{\"name\":\"a\",\"type\":\"A\"}]}",
		"services[0].type: is not a name of a-z, 0-9 and - (1 to 31)");
	refused("{" HEAD ",\"services\":[{\"name\":\"a\",\"type\":\"db\","
		"\"port\":65536}]}",
		"services[0].port: is not within 0 and 65535");
	refused("{" HEAD ",\"services\":[{\"name\":\"a\",\"type\":\"db\","
		"\"port\":1.5}]}",
		"services[0].port: is not a whole number");
	refused("{" HEAD ",\"services\":[{\"name\":\"a\",\"type\":\"db\"},"
		"{\"name\":\"a\",\"type\":\"db\"}]}",
		"services[1].name: is there twice");
}

static void test_counts_are_bounded(void **state)
{
	char *text = malloc(100000);
	size_t len = sprintf(text, "{" HEAD ",\"services\":[");

	for (int i = 0; i <= REGISTRATION_SERVICES_MAX; i++)
		len += sprintf(text + len,
			"%s{\"name\":\"s%d\",\"type\":\"db\"}", i ? "," : "",
			i);
	strcpy(text + len, "]}");
	refused(text, "services: has more than 256 entries");
	len = sprintf(text, "{" HEAD ",\"labels\":{");
	for (int i = 0; i <= REGISTRATION_LABELS_MAX; i++)
		len += sprintf(text + len, "%s\"l%d\":\"v\"", i ? "," : "", i);
	strcpy(text + len, "}}");
	refused(text, "labels: has more than 64 entries");
	free(text);
}

static void test_lengths_are_bounded(void **state)
{
	char text[1024], value[300], want[400];

	memset(value, 'v', sizeof(value));
	value[257] = '\0';
	sprintf(text, "{" HEAD ",\"labels\":{\"a\":\"%s\"}}", value);
	refused(text, "labels.a: is longer than 256 bytes");
	value[64] = '\0';
	sprintf(text, "{" HEAD ",\"labels\":{\"%s\":\"a\"}}", value);
	sprintf(want, "labels.%s: is longer than 63 bytes", value);
	refused(text, want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_comes_back_as_it_was),
		cmocka_unit_test(test_labels_and_services_may_be_absent),
		cmocka_unit_test(test_refused_with_the_place),
		cmocka_unit_test(test_counts_are_bounded),
		cmocka_unit_test(test_lengths_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
