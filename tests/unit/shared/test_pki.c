/* SPDX-License-Identifier: Apache-2.0 */
/* Requests, pins, PEM, and what is in a certificate that we issue. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/alloc.h"
#include "shared/identity.h"
#include "shared/pki.h"

#define UUID "12345678-9abc-4def-8123-456789abcdef"

static void test_key_survives_pem(void **state)
{
	EVP_PKEY *key = pki_key_new();
	char *pem = pki_key_to_pem(key);
	char *error = NULL;
	EVP_PKEY *again = pki_key_from_pem(pem, strlen(pem), &error);

	assert_non_null(again);
	assert_int_equal(1, EVP_PKEY_eq(key, again));
	EVP_PKEY_free(again);
	again = pki_key_from_pem(pem, strlen(pem) - 30, &error);
	assert_null(again);
	assert_non_null(error);
	free(error);
	free(pem);
	EVP_PKEY_free(key);
}

static void test_request_gives_its_key(void **state)
{
	EVP_PKEY *key = pki_key_new();
	size_t len = 0;
	uint8_t *der = pki_csr_make(key, &len);
	char *error = NULL;
	EVP_PKEY *got = pki_csr_key(der, len, &error);

	assert_int_equal(1, EVP_PKEY_eq(key, got));
	EVP_PKEY_free(got);
	EVP_PKEY_free(key);
	free(der);
}

/* Takes error. */
static void assert_refused(EVP_PKEY *key, char **error, const char *why)
{
	assert_null(key);
	assert_non_null(*error);
	assert_non_null(strstr(*error, why));
	free(*error);
	*error = NULL;
}

static void test_bad_requests_are_refused(void **state)
{
	EVP_PKEY *key = pki_key_new();
	size_t len = 0;
	uint8_t *der = pki_csr_make(key, &len);
	uint8_t *more = xcalloc(1, 20000);
	char *error = NULL;

	assert_refused(pki_csr_key(der, 0, &error), &error, "bad length");
	assert_refused(pki_csr_key(der, len - 1, &error), &error, "malformed");
	memcpy(more, der, len);
	assert_refused(pki_csr_key(more, len + 1, &error), &error, "malformed");
	assert_refused(pki_csr_key(more, 20000, &error), &error, "bad length");
	der[len - 1] ^= 1;
	assert_refused(pki_csr_key(der, len, &error), &error, "bad signature");
	free(more);
	free(der);
	EVP_PKEY_free(key);
}

static void test_weak_keys_are_refused(void **state)
{
	EVP_PKEY *keys[] = {EVP_RSA_gen(1024), EVP_EC_gen("secp224r1")};
	char *error = NULL;

	for (int i = 0; i < 2; i++) {
		size_t len = 0;
		uint8_t *der = pki_csr_make(keys[i], &len);

		assert_non_null(der);
		assert_refused(
			pki_csr_key(der, len, &error), &error, "kind of key");
		free(der);
		EVP_PKEY_free(keys[i]);
	}
}

static void test_pin_names_the_key(void **state)
{
	EVP_PKEY *key = pki_key_new();
	EVP_PKEY *other = pki_key_new();
	X509 *ca = pki_ca_make(key, "test CA", 10);
	char pin[80];
	char other_pin[80];

	pki_spki_pin(key, pin, sizeof(pin));
	pki_spki_pin(other, other_pin, sizeof(other_pin));
	assert_int_equal(71, strlen(pin));
	assert_memory_equal("sha256:", pin, 7);
	assert_true(pki_pin_matches(ca, pin));
	assert_false(pki_pin_matches(ca, other_pin));
	assert_false(pki_pin_matches(ca, ""));
	X509_free(ca);
	EVP_PKEY_free(other);
	EVP_PKEY_free(key);
}

struct issued {
	EVP_PKEY *ca_key;
	EVP_PKEY *key;
	X509 *ca;
	X509 *cert;
};

static void issue(struct issued *issued, const struct pki_template *template)
{
	char *error = NULL;

	issued->ca_key = pki_key_new();
	issued->key = pki_key_new();
	issued->ca = pki_ca_make(issued->ca_key, "test CA", 10);
	issued->cert = pki_issue(
		template, issued->key, issued->ca, issued->ca_key, &error);
	free(error);
}

static void issued_done(struct issued *issued)
{
	X509_free(issued->cert);
	X509_free(issued->ca);
	EVP_PKEY_free(issued->key);
	EVP_PKEY_free(issued->ca_key);
}

static int verify(const struct issued *issued, int purpose)
{
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	int ok;

	X509_STORE_add_cert(store, issued->ca);
	X509_STORE_CTX_init(ctx, store, issued->cert, NULL);
	X509_STORE_CTX_set_purpose(ctx, purpose);
	ok = X509_verify_cert(ctx);
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	return ok;
}

static void test_proxy_certificate(void **state)
{
	static const char *const roles[] = {"Proxy", NULL};
	static const char *const dns[] = {"6578.teleport.cluster.local",
		"*.teleport.cluster.local", NULL};
	static const char *const ips[] = {"127.0.0.1", "::1", NULL};
	char cluster[200];
	char *cn;
	struct pki_template template = {.organizations = roles,
		.dns_names = dns,
		.ip_addresses = ips,
		.server = true,
		.not_before = time(NULL) - 60,
		.not_after = time(NULL) + 3600};
	struct issued issued;
	struct host_identity id;
	const char *reason;

	/* longer than the 64 characters of X.520 */
	memset(cluster, 'c', sizeof(cluster));
	cluster[150] = '\0';
	cn = xasprintf(UUID ".%s", cluster);
	template.common_name = cn;
	issue(&issued, &template);
	assert_non_null(issued.cert);
	assert_int_equal(1, verify(&issued, X509_PURPOSE_SSL_CLIENT));
	assert_int_equal(1, verify(&issued, X509_PURPOSE_SSL_SERVER));
	assert_int_equal(1, X509_check_host(issued.cert,
				    "6578.teleport.cluster.local", 0, 0, NULL));
	assert_int_equal(
		0, X509_check_host(issued.cert, "evil.example", 0, 0, NULL));
	assert_int_equal(1, X509_check_ip_asc(issued.cert, "127.0.0.1", 0));
	assert_int_equal(1, X509_check_ip_asc(issued.cert, "::1", 0));
	assert_int_equal(
		0, identity_of_host(issued.cert, cluster, &id, &reason));
	assert_int_equal(IDENTITY_PROXY, id.roles);
	assert_int_equal(0, X509_check_ca(issued.cert));
	issued_done(&issued);
	free(cn);
}

static void test_agent_certificate_cannot_serve(void **state)
{
	static const char *const roles[] = {"Node", NULL};
	struct pki_template template = {.common_name = UUID ".example",
		.organizations = roles,
		.uri = "peerway://agent/db-1",
		.not_before = time(NULL) - 60,
		.not_after = time(NULL) + 3600};
	struct issued issued;
	struct host_identity id;
	const char *reason;

	issue(&issued, &template);
	assert_non_null(issued.cert);
	assert_int_equal(1, verify(&issued, X509_PURPOSE_SSL_CLIENT));
	assert_int_equal(0, verify(&issued, X509_PURPOSE_SSL_SERVER));
	assert_int_equal(
		0, identity_of_host(issued.cert, "example", &id, &reason));
	assert_string_equal("db-1", id.agent_name);
	issued_done(&issued);
}

static void test_bad_address_makes_no_certificate(void **state)
{
	static const char *const ips[] = {"not an address", NULL};
	struct pki_template template = {.common_name = "x",
		.ip_addresses = ips,
		.not_after = time(NULL) + 3600};
	struct issued issued;

	issue(&issued, &template);
	assert_null(issued.cert);
	issued_done(&issued);
}

static void test_pem_of_several_is_read_whole_or_not_at_all(void **state)
{
	EVP_PKEY *key = pki_key_new();
	X509 *one = pki_ca_make(key, "one", 10);
	X509 *two = pki_ca_make(key, "two", 10);
	char *first = pki_cert_to_pem(one);
	char *second = pki_cert_to_pem(two);
	char *both = xasprintf("a comment\n%s%s", first, second);
	char *error = NULL;
	STACK_OF(X509) *certs = pki_certs_from_pem(both, strlen(both), &error);

	assert_int_equal(2, sk_X509_num(certs));
	assert_int_equal(0, X509_cmp(one, sk_X509_value(certs, 0)));
	assert_int_equal(0, X509_cmp(two, sk_X509_value(certs, 1)));
	sk_X509_pop_free(certs, X509_free);

	/* cut off in the second: in its body, its end line, its first line */
	for (size_t cut = 1; cut < strlen(second) - 10; cut += 7) {
		certs = pki_certs_from_pem(both, strlen(both) - cut, &error);
		if (cut == 1) {
			/* only the last newline is missing */
			assert_int_equal(2, sk_X509_num(certs));
			sk_X509_pop_free(certs, X509_free);
			continue;
		}
		assert_null(certs);
		free(error);
		error = NULL;
	}
	assert_null(pki_certs_from_pem("", 0, &error));
	free(error);
	free(both);
	free(second);
	free(first);
	X509_free(two);
	X509_free(one);
	EVP_PKEY_free(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_key_survives_pem),
		cmocka_unit_test(test_request_gives_its_key),
		cmocka_unit_test(test_bad_requests_are_refused),
		cmocka_unit_test(test_weak_keys_are_refused),
		cmocka_unit_test(test_pin_names_the_key),
		cmocka_unit_test(test_proxy_certificate),
		cmocka_unit_test(test_agent_certificate_cannot_serve),
		cmocka_unit_test(test_bad_address_makes_no_certificate),
		cmocka_unit_test(
			test_pem_of_several_is_read_whole_or_not_at_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
