/* SPDX-License-Identifier: Apache-2.0 */
/* What a host does about the CAs that authd names. */
#include "tests/unit/test.h"

#include <string.h>

#include "routed/trust.h"
#include "tests/unit/host_ca.h"

#define HOST "12345678-9abc-4def-8123-456789abcdef"

struct fixture {
	struct ca old, new;
	struct tls_identity *now; /* of the old CA */
	char *old_pem, *new_pem, *both;
	char old_pin[80], new_pin[80];
	struct trust_word word;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->old = ca_make();
	f->new = ca_make();
	f->now = ca_identity(&f->old, "Proxy", HOST);
	f->old_pem = pki_cert_to_pem(f->old.cert);
	f->new_pem = pki_cert_to_pem(f->new.cert);
	f->both = xasprintf("%s%s", f->new_pem, f->old_pem);
	pki_spki_pin(f->old.key, f->old_pin, sizeof(f->old_pin));
	pki_spki_pin(f->new.key, f->new_pin, sizeof(f->new_pin));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	trust_deinit(&f->word);
	tls_identity_unref(f->now);
	ca_free(&f->old);
	ca_free(&f->new);
	free(f->old_pem);
	free(f->new_pem);
	free(f->both);
	free(f);
	return 0;
}

static bool hear(struct fixture *f, char *host_ca, char *active)
{
	Peerway__Record__ClusterConfig config =
		PEERWAY__RECORD__CLUSTER_CONFIG__INIT;

	config.host_ca = host_ca;
	config.host_ca_id = active;
	config.user_ca = f->old_pem;
	return trust_hear(&f->word, &config);
}

static enum trust_step step(struct fixture *f)
{
	struct tls_identity *next = NULL;
	enum trust_step step = trust_next(&f->word, f->now, &next);

	if (next) {
		tls_identity_unref(f->now);
		f->now = next;
	}
	return step;
}

static void an_authd_that_names_no_ca_changes_nothing(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(step(f), TRUST_SAME);
	hear(f, (char *)"", (char *)"");
	assert_int_equal(step(f), TRUST_SAME);
	assert_true(trust_is_active(&f->word, f->now));
}

static void a_second_ca_is_trusted_beside_the_first(void **state)
{
	struct fixture *f = *state;

	assert_true(hear(f, f->both, f->new_pin));
	assert_false(hear(f, f->both, f->new_pin));
	assert_int_equal(step(f), TRUST_OTHER);
	assert_int_equal(sk_X509_num(f->now->host_ca), 2);
	assert_int_equal(step(f), TRUST_SAME);
	/* and the certificate wants renewal */
	assert_false(trust_is_active(&f->word, f->now));
	hear(f, f->both, f->old_pin);
	assert_true(trust_is_active(&f->word, f->now));
}

static void a_certificate_of_a_withdrawn_ca_stays_in_use(void **state)
{
	struct fixture *f = *state;
	struct tls_identity *before = f->now;

	hear(f, f->new_pem, f->new_pin);
	assert_int_equal(step(f), TRUST_WITHDRAWN);
	assert_ptr_equal(f->now, before);
}

static void what_cannot_be_read_changes_nothing(void **state)
{
	struct fixture *f = *state;
	size_t len = strlen(f->both);
	char *torn = xstrndup(f->both, len - 30);

	hear(f, torn, f->new_pin);
	assert_int_equal(step(f), TRUST_UNREADABLE);
	assert_int_equal(sk_X509_num(f->now->host_ca), 1);
	free(torn);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_authd_that_names_no_ca_changes_nothing),
		TEST(a_second_ca_is_trusted_beside_the_first),
		TEST(a_certificate_of_a_withdrawn_ca_stays_in_use),
		TEST(what_cannot_be_read_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
