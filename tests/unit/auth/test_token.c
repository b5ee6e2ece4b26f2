/* SPDX-License-Identifier: Apache-2.0 */
/* Join tokens: their form, what is kept of them, and who is let in. */
#include "tests/unit/test.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "auth/token.h"
#include "shared/alloc.h"

static struct token make(char text[TOKEN_SIZE])
{
	struct token token = {.role = IDENTITY_PROXY, .expires = 1000};

	token_make(&token, text);
	return token;
}

static void test_new_token_has_its_form(void **state)
{
	char text[TOKEN_SIZE];
	char other[TOKEN_SIZE];
	char id[TOKEN_ID_SIZE];
	struct token token = make(text);

	make(other);
	assert_int_equal(TOKEN_SIZE - 1, strlen(text));
	assert_true(token_parse(text, id));
	assert_string_equal(token.id, id);
	assert_string_not_equal(text, other);
	assert_string_not_equal(text + 17, other + 17);
}

static void test_what_is_no_token(void **state)
{
	char text[TOKEN_SIZE];
	char copy[TOKEN_SIZE + 1];
	char id[TOKEN_ID_SIZE];

	make(text);
	assert_false(token_parse("", id));
	for (size_t i = 0; i < strlen(text); i++) {
		strcpy(copy, text);
		copy[i] = i == 16 ? '0' : 'X';
		assert_false(token_parse(copy, id));
		strcpy(copy, text);
		copy[i] = '\0';
		assert_false(token_parse(copy, id));
	}
	strcpy(copy, text);
	strcat(copy, "0");
	assert_false(token_parse(copy, id));
}

static void test_secret_is_not_kept(void **state)
{
	char text[TOKEN_SIZE];
	struct token token = make(text);
	char *stored = token_encode(&token);

	assert_null(strstr(stored, text + 17));
	assert_non_null(strstr(stored, token.id));
	free(stored);
}

static void test_any_other_secret_is_wrong(void **state)
{
	char text[TOKEN_SIZE];
	struct token token = make(text);

	assert_int_equal(TOKEN_GOOD,
		token_verify(&token, text, IDENTITY_PROXY, "", 999));
	for (int i = 0; i < TOKEN_SIZE - 1; i++) {
		char copy[TOKEN_SIZE];

		if (i == 16)
			continue;
		strcpy(copy, text);
		copy[i] = copy[i] == '0' ? '1' : '0';
		assert_int_equal(TOKEN_WRONG,
			token_verify(&token, copy, IDENTITY_PROXY, "", 999));
	}
}

static void test_verdicts(void **state)
{
	char text[TOKEN_SIZE];
	struct token token = make(text);

	assert_int_equal(TOKEN_EXPIRED,
		token_verify(&token, text, IDENTITY_PROXY, "", 1000));
	assert_int_equal(TOKEN_OTHER_ROLE,
		token_verify(&token, text, IDENTITY_NODE, "", 999));
	token.role = IDENTITY_NODE;
	assert_int_equal(TOKEN_GOOD,
		token_verify(&token, text, IDENTITY_NODE, "any", 999));
	strcpy(token.agent_name, "db-1");
	assert_int_equal(TOKEN_GOOD,
		token_verify(&token, text, IDENTITY_NODE, "db-1", 999));
	assert_int_equal(
		TOKEN_GOOD, token_verify(&token, text, IDENTITY_NODE, "", 999));
	assert_int_equal(TOKEN_OTHER_NAME,
		token_verify(&token, text, IDENTITY_NODE, "db-2", 999));
	/* a wrong secret learns nothing else */
	text[40] = text[40] == '0' ? '1' : '0';
	assert_int_equal(TOKEN_WRONG,
		token_verify(&token, text, IDENTITY_PROXY, "", 2000));
}

static void test_record_survives_the_store(void **state)
{
	char text[TOKEN_SIZE];
	struct token token = make(text);
	struct token again;
	char *stored;

	token.role = IDENTITY_NODE;
	strcpy(token.agent_name, "db-1");
	names_add(&token.names, "Proxy1.Example.com");
	names_add(&token.names, "::1");
	stored = token_encode(&token);
	assert_int_equal(
		0, token_decode((uint8_t *)stored, strlen(stored), &again));
	assert_string_equal(token.id, again.id);
	assert_memory_equal(token.hash, again.hash, TOKEN_HASH_SIZE);
	assert_int_equal(token.role, again.role);
	assert_string_equal("db-1", again.agent_name);
	assert_int_equal(1000, again.expires);
	assert_int_equal(2, again.names.count);
	assert_true(names_has(&again.names, "proxy1.example.com"));
	for (size_t cut = 0; cut < strlen(stored); cut++)
		assert_int_not_equal(
			0, token_decode((uint8_t *)stored, cut, &again));
	token_deinit(&again);
	token_deinit(&token);
	free(stored);
}

static void test_roles_have_names(void **state)
{
	assert_int_equal(IDENTITY_PROXY, token_role_parse("proxy"));
	assert_int_equal(IDENTITY_NODE, token_role_parse("node"));
	assert_int_equal(IDENTITY_NONE, token_role_parse("auth"));
	assert_int_equal(IDENTITY_NONE, token_role_parse("Proxy"));
	assert_string_equal("node", token_role_text(IDENTITY_NODE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new_token_has_its_form),
		cmocka_unit_test(test_what_is_no_token),
		cmocka_unit_test(test_secret_is_not_kept),
		cmocka_unit_test(test_any_other_secret_is_wrong),
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_record_survives_the_store),
		cmocka_unit_test(test_roles_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
