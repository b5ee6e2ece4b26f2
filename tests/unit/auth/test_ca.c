/* SPDX-License-Identifier: Apache-2.0 */
/* The CAs in a store of their own: made, rotated, rolled back, read again. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "auth/backend_sqlite.h"
#include "auth/ca.h"
#include "shared/alloc.h"
#include "shared/bundle.h"
#include "shared/pki.h"

struct fixture {
	char dir[64];
	char path[80];
	char key[80]; /* that seals the CAs' */
	struct loop *loop;
	struct backend *backend;
	struct ca_store store;
	struct ca_pair *cas;
	char first[80]; /* pin of the host CA in the beginning */
	bool answered;
	enum backend_status status;
};

static void on_loaded(void *arg, struct ca_pair *cas, const char *error)
{
	struct fixture *f = arg;

	if (!cas)
		fail_msg("%s", error);
	ca_pair_free(f->cas);
	f->cas = cas;
	f->answered = true;
}

static void wait_answer(struct fixture *f)
{
	for (int i = 0; i < 1000 && !f->answered; i++)
		loop_turn(f->loop, false);
	assert_true(f->answered);
}

static void load(struct fixture *f)
{
	f->answered = false;
	f->store.backend = f->backend;
	ca_load(&f->store, on_loaded, f);
	wait_answer(f);
}

static void open_store(struct fixture *f)
{
	struct backend_sqlite_options options = {.path = f->path};
	char *error = NULL;

	f->backend = backend_sqlite_new(f->loop, &options, &error);
	if (!f->backend)
		fail_msg("%s", error);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	char *error = NULL;

	strcpy(f->dir, "/tmp/peerway-ca-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/backend.db", f->dir);
	snprintf(f->key, sizeof(f->key), "%s/ca.key", f->dir);
	f->loop = loop_new();
	f->store.cluster = "example";
	f->store.seal = seal_new(f->key, &error);
	open_store(f);
	load(f);
	strcpy(f->first, f->cas->host.active.pin);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	static const char *const ends[] = {"", "-wal", "-shm"};
	struct fixture *f = *state;
	char path[128];

	ca_pair_free(f->cas);
	seal_free(f->store.seal);
	unlink(f->key);
	backend_free(f->backend);
	loop_free(f->loop);
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s%s", f->path, ends[i]);
		unlink(path);
	}
	rmdir(f->dir);
	free(f);
	return 0;
}

static void on_changed(void *arg, enum backend_status status, uint64_t revision)
{
	struct fixture *f = arg;

	f->status = status;
	f->answered = true;
}

/* Of the host CA, from what was read last. */
static enum backend_status change(struct fixture *f, enum ca_action action)
{
	struct ca_change change = {
		.host = action, .user = CA_NOTHING, .now = time(NULL)};

	f->answered = false;
	assert_int_equal(
		ca_change(&f->store, f->cas, &change, on_changed, f), 0);
	wait_answer(f);
	return f->status;
}

static void changed(struct fixture *f, enum ca_action action)
{
	assert_int_equal(change(f, action), BACKEND_OK);
	/* as after a crash right behind the write */
	backend_free(f->backend);
	open_store(f);
	load(f);
}

/* A certificate of signer, with cross behind it, leads to trusted. */
static void check_cross(
	const struct ca *signer, const char *cross_pem, X509 *trusted)
{
	STACK_OF(X509) *cross =
		pki_certs_from_pem(cross_pem, strlen(cross_pem), NULL);
	STACK_OF(X509) *cas = sk_X509_new_null();
	EVP_PKEY *key = pki_key_new();
	struct pki_template template = {.common_name = "host",
		.organizations = (const char *const[]){"Node", NULL},
		.not_before = time(NULL) - 60,
		.not_after = time(NULL) + 3600};
	X509 *leaf = pki_issue(&template, key, signer->cert, signer->key, NULL);

	assert_non_null(leaf);
	sk_X509_push(cas, trusted);
	assert_false(bundle_verifies(leaf, cas, NULL, false));
	assert_true(bundle_verifies(leaf, cas, cross, false));
	X509_free(leaf);
	EVP_PKEY_free(key);
	sk_X509_free(cas);
	sk_X509_pop_free(cross, X509_free);
}

static void check_standby(const struct ca_set *set)
{
	assert_int_equal(set->state.phase, CA_STANDBY);
	assert_null(set->other.cert);
	assert_null(set->cross);
	assert_string_equal(set->bundle, set->active.pem);
}

static void a_rotation_ends_with_the_second_ca(void **state)
{
	struct fixture *f = *state;
	const struct ca_set *host;
	char second[80];

	check_standby(&f->cas->host);
	changed(f, CA_MAKE);
	host = &f->cas->host;
	assert_int_equal(host->state.phase, CA_ROTATING);
	assert_true(host->state.since > time(NULL) - 60);
	assert_string_equal(host->other.pin, f->first);
	strcpy(second, host->active.pin);
	assert_string_not_equal(second, f->first);
	check_cross(&host->active, host->cross, host->other.cert);
	check_standby(&f->cas->user);
	changed(f, CA_DROP_FIRST);
	check_standby(&f->cas->host);
	assert_string_equal(f->cas->host.active.pin, second);
}

static void a_rollback_ends_with_the_first_ca(void **state)
{
	struct fixture *f = *state;
	const struct ca_set *host;

	changed(f, CA_MAKE);
	changed(f, CA_USE_FIRST);
	host = &f->cas->host;
	assert_int_equal(host->state.phase, CA_ROLLING_BACK);
	assert_string_equal(host->active.pin, f->first);
	check_cross(&host->active, host->cross, host->other.cert);
	changed(f, CA_USE_SECOND);
	assert_string_equal(f->cas->host.other.pin, f->first);
	changed(f, CA_USE_FIRST);
	changed(f, CA_DROP_SECOND);
	check_standby(&f->cas->host);
	assert_string_equal(f->cas->host.active.pin, f->first);
}

static void of_two_who_act_at_once_one_loses(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(change(f, CA_MAKE), BACKEND_OK);
	/* the other one still has what it read before */
	assert_int_equal(change(f, CA_MAKE), BACKEND_COMPARE_FAILED);
	load(f);
	assert_int_equal(change(f, CA_DROP_FIRST), BACKEND_OK);
	assert_int_equal(change(f, CA_USE_FIRST), BACKEND_COMPARE_FAILED);
	load(f);
	check_standby(&f->cas->host);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_rotation_ends_with_the_second_ca),
		TEST(a_rollback_ends_with_the_first_ca),
		TEST(of_two_who_act_at_once_one_loses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
