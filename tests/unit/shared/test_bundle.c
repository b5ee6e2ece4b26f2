/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One CA replaced by another of the same name: who trusts which accepts whose
 * certificates, what is sent, and whose word is taken for a new CA.
 */
#include "tests/unit/test.h"

#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/alloc.h"
#include "shared/bundle.h"
#include "shared/pki.h"
#include "shared/tls.h"

struct side {
	EVP_PKEY *key;
	X509 *ca;
	X509 *cross; /* this CA, certified by the other */
	char pin[80];
};

static struct side old, new, stranger;
static EVP_PKEY *host_key;

static void make_side(struct side *side)
{
	side->key = pki_key_new();
	side->ca = pki_ca_make(side->key, "example host CA", 100);
	pki_spki_pin(side->key, side->pin, sizeof(side->pin));
}

static int setup(void **state)
{
	make_side(&old);
	make_side(&new);
	make_side(&stranger);
	host_key = pki_key_new();
	new.cross = pki_ca_cross(new.ca, old.ca, old.key, time(NULL) + 3600);
	old.cross = pki_ca_cross(old.ca, new.ca, new.key, time(NULL) + 3600);
	/* says so itself */
	stranger.cross = pki_ca_cross(
		stranger.ca, stranger.ca, stranger.key, time(NULL) + 3600);
	assert_non_null(new.cross);
	assert_non_null(old.cross);
	return 0;
}

static int teardown(void **state)
{
	struct side *sides[] = {&old, &new, &stranger};

	for (int i = 0; i < 3; i++) {
		X509_free(sides[i]->ca);
		X509_free(sides[i]->cross);
		EVP_PKEY_free(sides[i]->key);
	}
	EVP_PKEY_free(host_key);
	return 0;
}

static X509 *issue(struct side *side)
{
	const char *const roles[] = {"Proxy", NULL};
	const char *const dns[] = {"host.example", NULL};
	struct pki_template template = {.common_name = "host",
		.organizations = roles,
		.dns_names = dns,
		.server = true,
		.not_before = time(NULL) - 60,
		.not_after = time(NULL) + 3600};
	X509 *cert = pki_issue(&template, host_key, side->ca, side->key, NULL);

	assert_non_null(cert);
	return cert;
}

/* Of up to three; the certificates stay the caller's. */
static STACK_OF(X509) * stack(X509 *a, X509 *b, X509 *c)
{
	STACK_OF(X509) *certs = sk_X509_new_null();

	if (a)
		sk_X509_push(certs, a);
	if (b)
		sk_X509_push(certs, b);
	if (c)
		sk_X509_push(certs, c);
	return certs;
}

static bool accepts(X509 *leaf, STACK_OF(X509) * trusted, STACK_OF(X509) * sent)
{
	bool ok = bundle_verifies(leaf, trusted, sent, false);

	sk_X509_free(trusted);
	sk_X509_free(sent);
	return ok;
}

static void test_who_trusts_only_the_old_ca_accepts_the_new_ones_hosts(
	void **state)
{
	X509 *leaf = issue(&new);

	assert_true(accepts(leaf, stack(old.ca, NULL, NULL),
		stack(new.cross, new.ca, old.ca)));
	assert_true(accepts(leaf, stack(new.ca, NULL, NULL),
		stack(new.cross, new.ca, old.ca)));
	assert_true(accepts(leaf, stack(old.ca, new.ca, NULL),
		stack(new.cross, new.ca, old.ca)));
	assert_false(accepts(leaf, stack(stranger.ca, NULL, NULL),
		stack(new.cross, new.ca, old.ca)));
	/* after the rotation nothing leads there any more */
	assert_false(accepts(
		leaf, stack(old.ca, NULL, NULL), stack(new.ca, NULL, NULL)));
	X509_free(leaf);
}

static void test_a_cross_certificate_ends(void **state)
{
	X509 *leaf = issue(&new);
	X509 *over = pki_ca_cross(new.ca, old.ca, old.key, time(NULL) - 1);

	assert_non_null(over);
	assert_false(accepts(
		leaf, stack(old.ca, NULL, NULL), stack(over, new.ca, old.ca)));
	/* and is in nobody's way */
	assert_true(accepts(leaf, stack(old.ca, new.ca, NULL),
		stack(over, new.ca, old.ca)));
	X509_free(over);
	X509_free(leaf);
}

static void test_who_trusts_only_the_new_ca_accepts_after_a_rollback(
	void **state)
{
	X509 *leaf = issue(&old);

	assert_true(accepts(leaf, stack(new.ca, NULL, NULL),
		stack(old.cross, old.ca, new.ca)));
	assert_false(accepts(
		leaf, stack(new.ca, NULL, NULL), stack(old.ca, NULL, NULL)));
	X509_free(leaf);
}

/* What cert_pem of an identity holds, leaf first. */
static STACK_OF(X509) * sent_by(X509 *leaf, X509 *cross, X509 *a, X509 *b)
{
	STACK_OF(X509) *file = stack(leaf, cross, NULL);
	STACK_OF(X509) *cas = stack(a, b, NULL);
	STACK_OF(X509) * sent;
	char *cert = pki_certs_to_pem(file);
	char *ca = pki_certs_to_pem(cas);
	char *key = pki_key_to_pem(host_key);
	char *error = NULL;
	struct tls_identity *identity =
		tls_identity_from_pem(cert, key, ca, NULL, &error);

	if (!identity)
		fail_msg("%s", error);
	sent = pki_certs_from_pem(
		identity->cert_pem, strlen(identity->cert_pem), NULL);
	tls_identity_unref(identity);
	sk_X509_free(file);
	sk_X509_free(cas);
	free(cert);
	free(ca);
	free(key);
	return sent;
}

static void test_a_host_sends_what_both_kinds_of_verifiers_need(void **state)
{
	X509 *leaf = issue(&new);
	STACK_OF(X509) *sent = sent_by(leaf, new.cross, old.ca, new.ca);

	assert_int_equal(sk_X509_num(sent), 4);
	/* the cross certificate before the CA of the same key: verifiers take
	 * the first */
	assert_int_equal(X509_cmp(sk_X509_value(sent, 1), new.cross), 0);
	assert_true(bundle_contains(sent, new.ca));
	assert_true(bundle_contains(sent, old.ca));
	sk_X509_pop_free(sent, X509_free);
	X509_free(leaf);
}

static void test_what_was_withdrawn_is_not_sent(void **state)
{
	X509 *leaf = issue(&new);
	STACK_OF(X509) *sent = sent_by(leaf, new.cross, new.ca, NULL);

	assert_int_equal(sk_X509_num(sent), 2);
	assert_int_equal(X509_cmp(sk_X509_value(sent, 1), new.ca), 0);
	sk_X509_pop_free(sent, X509_free);
	X509_free(leaf);
}

static void test_an_identity_of_a_withdrawn_ca_is_refused(void **state)
{
	X509 *leaf = issue(&old);
	STACK_OF(X509) *cas = stack(new.ca, NULL, NULL);
	char *cert = pki_cert_to_pem(leaf);
	char *ca = pki_certs_to_pem(cas);
	char *key = pki_key_to_pem(host_key);
	char *error = NULL;

	assert_null(tls_identity_from_pem(cert, key, ca, NULL, &error));
	assert_non_null(strstr(error, "not issued by the host CA"));
	free(error);
	free(cert);
	free(ca);
	free(key);
	sk_X509_free(cas);
	X509_free(leaf);
}

/* A handshake with a server whose identity this is; 1 when it succeeds. */
static int join_by(const char *pin, struct tls_identity *identity)
{
	char *error = NULL;
	SSL_CTX *client = tls_pin_ctx(pin, &error);
	SSL_CTX *server = tls_server_ctx(
		identity, identity->host_ca, TLS_VERIFY_NONE, &error);
	SSL *ends[2] = {SSL_new(client), SSL_new(server)};
	BIO *bios[2];
	int ret = -1;
	X509 *ca;

	assert_int_equal(BIO_new_bio_pair(&bios[0], 0, &bios[1], 0), 1);
	SSL_set_bio(ends[0], bios[0], bios[0]);
	SSL_set_bio(ends[1], bios[1], bios[1]);
	SSL_set_connect_state(ends[0]);
	SSL_set_accept_state(ends[1]);
	tls_expect_name(ends[0], "host.example", NULL);
	for (int i = 0; i < 20 && ret != 1; i++) {
		ret = SSL_do_handshake(ends[i % 2]);
		if (i % 2)
			ret = -1;
	}
	ca = ret == 1 ? tls_pinned_ca(ends[0], pin) : NULL;
	assert_true(ret != 1 || (ca && X509_self_signed(ca, 1) == 1));
	X509_free(ca);
	SSL_free(ends[0]);
	SSL_free(ends[1]);
	SSL_CTX_free(client);
	SSL_CTX_free(server);
	return ret == 1;
}

static struct tls_identity *identity_of(
	X509 *leaf, X509 *cross, X509 *a, X509 *b)
{
	STACK_OF(X509) *file = stack(leaf, cross, NULL);
	STACK_OF(X509) *cas = stack(a, b, NULL);
	char *cert = pki_certs_to_pem(file);
	char *ca = pki_certs_to_pem(cas);
	char *key = pki_key_to_pem(host_key);
	char *error = NULL;
	struct tls_identity *identity =
		tls_identity_from_pem(cert, key, ca, NULL, &error);

	if (!identity)
		fail_msg("%s", error);
	sk_X509_free(file);
	sk_X509_free(cas);
	free(cert);
	free(ca);
	free(key);
	return identity;
}

static void test_either_pin_joins_while_both_are_trusted(void **state)
{
	X509 *leaf = issue(&new);
	X509 *back = issue(&old);
	struct tls_identity *rotating =
		identity_of(leaf, new.cross, new.ca, old.ca);
	struct tls_identity *rolling =
		identity_of(back, old.cross, new.ca, old.ca);
	struct tls_identity *after = identity_of(leaf, new.cross, new.ca, NULL);

	assert_true(join_by(old.pin, rotating));
	assert_true(join_by(new.pin, rotating));
	assert_false(join_by(stranger.pin, rotating));
	assert_true(join_by(old.pin, rolling));
	assert_true(join_by(new.pin, rolling));
	assert_true(join_by(new.pin, after));
	assert_false(join_by(old.pin, after));
	tls_identity_unref(rotating);
	tls_identity_unref(rolling);
	tls_identity_unref(after);
	X509_free(leaf);
	X509_free(back);
}

static void test_a_new_ca_is_taken_on_the_old_ones_word_only(void **state)
{
	STACK_OF(X509) *trusted = stack(old.ca, NULL, NULL);
	STACK_OF(X509) *offered = stack(new.ca, old.ca, new.cross);
	STACK_OF(X509) *accepted = bundle_accept(trusted, offered);

	assert_int_equal(sk_X509_num(accepted), 2);
	assert_true(bundle_contains(accepted, new.ca));
	assert_true(bundle_contains(accepted, old.ca));
	sk_X509_pop_free(accepted, X509_free);
	sk_X509_free(offered);

	offered = stack(stranger.ca, stranger.cross, new.ca);
	accepted = bundle_accept(trusted, offered);
	assert_int_equal(sk_X509_num(accepted), 0);
	sk_X509_pop_free(accepted, X509_free);
	sk_X509_free(offered);
	sk_X509_free(trusted);
}

static void test_bundles_are_compared_as_sets(void **state)
{
	STACK_OF(X509) *a = stack(old.ca, new.ca, NULL);
	STACK_OF(X509) *b = stack(new.ca, old.ca, NULL);
	STACK_OF(X509) *c = stack(new.ca, NULL, NULL);

	assert_true(bundle_equal(a, b));
	assert_false(bundle_equal(a, c));
	assert_false(bundle_equal(c, a));
	sk_X509_free(a);
	sk_X509_free(b);
	sk_X509_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_who_trusts_only_the_old_ca_accepts_the_new_ones_hosts),
		cmocka_unit_test(test_a_cross_certificate_ends),
		cmocka_unit_test(
			test_who_trusts_only_the_new_ca_accepts_after_a_rollback),
		cmocka_unit_test(
			test_a_host_sends_what_both_kinds_of_verifiers_need),
		cmocka_unit_test(test_what_was_withdrawn_is_not_sent),
		cmocka_unit_test(test_an_identity_of_a_withdrawn_ca_is_refused),
		cmocka_unit_test(test_either_pin_joins_while_both_are_trusted),
		cmocka_unit_test(
			test_a_new_ca_is_taken_on_the_old_ones_word_only),
		cmocka_unit_test(test_bundles_are_compared_as_sets),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
