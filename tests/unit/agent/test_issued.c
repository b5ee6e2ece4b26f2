/* SPDX-License-Identifier: Apache-2.0 */
/* What a proxy answers to a join: only what is ours is taken. */
#include "tests/unit/test.h"

#include "agent/issued.h"
#include "tests/unit/agent/fake_proxy.h"

#define UUID "0a1b2c3d-0000-4000-8000-00000000000a"
#define OTHER "0a1b2c3d-0000-4000-8000-00000000000b"

struct fixture {
	struct fake_ca ca, other_ca;
	EVP_PKEY *key;
	struct issued_expect expect;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	fake_ca_init(&f->ca);
	fake_ca_init(&f->other_ca);
	f->key = pki_key_new();
	f->expect = (struct issued_expect){
		f->key, FAKE_CLUSTER, UUID, NULL, f->ca.pin};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fake_ca_deinit(&f->ca);
	fake_ca_deinit(&f->other_ca);
	EVP_PKEY_free(f->key);
	free(f);
	return 0;
}

/* The answer with these parts; gives. */
static char *answer(const char *chain, const char *ca, const char *cluster)
{
	json_t *document = json_pack("{s:s, s:s, s:s, s:s}", "cert_chain",
		chain, "host_ca", ca, "user_ca", "", "cluster_name", cluster);
	char *text = json_dumps(document, 0);

	json_decref(document);
	return text;
}

static char *issue(
	struct fake_ca *ca, EVP_PKEY *key, const char *uuid, const char *role)
{
	return fake_issue(ca, key, uuid, role, "db-1", time(NULL), 3600);
}

/* Takes both. */
static void refused(struct fixture *f, char *pem, char *text, const char *want)
{
	char *error = NULL;

	assert_null(issued_from_json(text, strlen(text), &f->expect, &error));
	assert_string_equal(error, want);
	free(error);
	free(text);
	free(pem);
}

static void test_ours_is_taken(void **state)
{
	struct fixture *f = *state;
	char *pem = issue(&f->ca, f->key, UUID, "Node");
	char *both = xasprintf("%s%s", pem, f->ca.pem), *error = NULL;
	char *text = answer(both, f->ca.pem, FAKE_CLUSTER);
	struct issued *issued =
		issued_from_json(text, strlen(text), &f->expect, &error);

	assert_non_null(issued);
	assert_string_equal(issued->cert_chain, both);
	assert_string_equal(issued->host_ca, f->ca.pem);
	issued_free(issued);
	/* a renewal knows no pin, but whom it trusts */
	f->expect.ca_pin = NULL;
	f->expect.trusted = sk_X509_new_null();
	sk_X509_push(f->expect.trusted, f->ca.cert);
	issued = issued_from_json(text, strlen(text), &f->expect, &error);
	assert_non_null(issued);
	issued_free(issued);
	sk_X509_pop(f->expect.trusted);
	sk_X509_push(f->expect.trusted, f->other_ca.cert);
	assert_null(issued_from_json(text, strlen(text), &f->expect, &error));
	free(error);
	sk_X509_free(f->expect.trusted);
	free(text);
	free(both);
	free(pem);
}

static void test_what_is_not_ours_is_refused(void **state)
{
	struct fixture *f = *state;
	EVP_PKEY *key = pki_key_new();
	char *pem;

	pem = issue(&f->ca, key, UUID, "Node");
	refused(f, pem, answer(pem, f->ca.pem, FAKE_CLUSTER),
		"cert_chain: is for another key");
	pem = issue(&f->ca, f->key, OTHER, "Node");
	refused(f, pem, answer(pem, f->ca.pem, FAKE_CLUSTER),
		"cert_chain: is for another host");
	pem = issue(&f->ca, f->key, UUID, "Proxy");
	refused(f, pem, answer(pem, f->ca.pem, FAKE_CLUSTER),
		"cert_chain: is for another host");
	pem = issue(&f->ca, f->key, UUID, "Node");
	refused(f, pem, answer(pem, f->ca.pem, "elsewhere"),
		"cluster_name: is another one");
	EVP_PKEY_free(key);
}

static void test_a_ca_without_our_pin_is_refused(void **state)
{
	static const char want[] = "cert_chain: was not issued by a CA in "
				   "host_ca with our pin";
	struct fixture *f = *state;
	char *pem = issue(&f->other_ca, f->key, UUID, "Node");

	refused(f, NULL, answer(pem, f->other_ca.pem, FAKE_CLUSTER), want);
	/* nor does it help to send ours along */
	refused(f, pem, answer(pem, f->ca.pem, FAKE_CLUSTER), want);
}

static void test_malformed_answers_are_refused(void **state)
{
	struct fixture *f = *state;
	char *pem = issue(&f->ca, f->key, UUID, "Node");
	char *error = NULL;

	refused(f, NULL, xstrdup("{}"), "cluster_name: is missing");
	refused(f, NULL, xstrdup("{\"cluster_name\":\"example\"}"),
		"cert_chain: is missing");
	refused(f, NULL,
		xstrdup("{\"cluster_name\":\"example\",\"cert_chain\":7}"),
		"cert_chain: is not a string");
	refused(f, NULL, xstrdup("no"),
		"line 1: '[' or '{' expected near 'no'");
	free(pem);
	pem = answer("x", f->ca.pem, FAKE_CLUSTER);
	assert_null(issued_from_json(pem, strlen(pem), &f->expect, &error));
	assert_non_null(error);
	free(error);
	free(pem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		CASE(test_ours_is_taken),
		CASE(test_what_is_not_ours_is_refused),
		CASE(test_a_ca_without_our_pin_is_refused),
		CASE(test_malformed_answers_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
