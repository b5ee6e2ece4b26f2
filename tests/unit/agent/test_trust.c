/* SPDX-License-Identifier: Apache-2.0 */
/* Which CAs an agent trusts on a proxy's word, and when it drops one. */
#include "tests/unit/test.h"

#include <string.h>

#include "agent/trust.h"
#include "shared/bundle.h"
#include "tests/unit/host_ca.h"

#define AGENT "0a1b2c3d-0000-4000-8000-00000000000a"

struct fixture {
	struct ca old, new;
	char *old_pem, *new_pem, *cross_pem;
	char old_pin[80], new_pin[80];
	struct tls_identity *now;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	X509 *cross;

	f->old = ca_make();
	f->new = ca_make();
	cross = pki_ca_cross(
		f->new.cert, f->old.cert, f->old.key, time(NULL) + 3600);
	f->old_pem = pki_cert_to_pem(f->old.cert);
	f->new_pem = pki_cert_to_pem(f->new.cert);
	f->cross_pem = pki_cert_to_pem(cross);
	X509_free(cross);
	pki_spki_pin(f->old.key, f->old_pin, sizeof(f->old_pin));
	pki_spki_pin(f->new.key, f->new_pin, sizeof(f->new_pin));
	f->now = ca_identity(&f->old, "Node", AGENT);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	tls_identity_unref(f->now);
	ca_free(&f->old);
	ca_free(&f->new);
	free(f->old_pem);
	free(f->new_pem);
	free(f->cross_pem);
	free(f);
	return 0;
}

/* Told these; gives the step and, in *count_out, how many CAs are trusted then.
 */
static enum trust_step tell(struct fixture *f, const char *a, const char *b,
	const char *c, int *count_out)
{
	char *pem = xasprintf("%s%s%s", a, b, c);
	struct discovery discovery = {.host_ca = pem};
	char *host_ca = NULL;
	enum trust_step step = trust_next(&discovery, f->now, &host_ca);
	STACK_OF(X509) * cas;

	*count_out = sk_X509_num(f->now->host_ca);
	if (host_ca) {
		cas = pki_certs_from_pem(host_ca, strlen(host_ca), NULL);
		*count_out = sk_X509_num(cas);
		sk_X509_pop_free(cas, X509_free);
	}
	free(host_ca);
	free(pem);
	return step;
}

static void a_ca_that_ours_vouches_for_is_trusted(void **state)
{
	struct fixture *f = *state;
	int count;

	assert_int_equal(tell(f, f->new_pem, f->old_pem, f->cross_pem, &count),
		TRUST_OTHER);
	assert_int_equal(count, 2);
}

static void a_proxy_cannot_bring_in_a_ca(void **state)
{
	struct fixture *f = *state;
	int count;

	assert_int_equal(
		tell(f, f->new_pem, f->old_pem, "", &count), TRUST_SAME);
	assert_int_equal(tell(f, f->new_pem, "", "", &count), TRUST_WITHDRAWN);
	assert_int_equal(count, 1);
	assert_int_equal(tell(f, "garbage", "", "", &count), TRUST_REFUSED);
}

static void who_says_nothing_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct discovery discovery = {0};
	char *host_ca = NULL;

	assert_int_equal(trust_next(&discovery, f->now, &host_ca), TRUST_SAME);
}

/* Takes over both CAs. */
static void trust_both(struct fixture *f)
{
	sk_X509_push(f->now->host_ca, f->new.cert);
	X509_up_ref(f->new.cert);
}

static void the_ca_of_our_certificate_is_not_dropped(void **state)
{
	struct fixture *f = *state;
	int count;

	trust_both(f);
	assert_int_equal(tell(f, f->new_pem, "", "", &count), TRUST_WITHDRAWN);
	assert_int_equal(tell(f, f->old_pem, "", "", &count), TRUST_OTHER);
	assert_int_equal(count, 1);
}

static void a_certificate_of_another_ca_than_signs_is_renewed(void **state)
{
	struct fixture *f = *state;

	assert_true(trust_is_active("", f->now));
	assert_true(trust_is_active(f->old_pin, f->now));
	/* unknown here: a proxy could name anything */
	assert_true(trust_is_active(f->new_pin, f->now));
	trust_both(f);
	assert_false(trust_is_active(f->new_pin, f->now));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_ca_that_ours_vouches_for_is_trusted),
		TEST(a_proxy_cannot_bring_in_a_ca),
		TEST(who_says_nothing_changes_nothing),
		TEST(the_ca_of_our_certificate_is_not_dropped),
		TEST(a_certificate_of_another_ca_than_signs_is_renewed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
