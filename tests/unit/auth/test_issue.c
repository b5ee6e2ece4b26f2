/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in the certificates of hosts, agents and people, and in what is
 * remembered of a host. */
#include "tests/unit/test.h"

#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "auth/issue.h"
#include "shared/alloc.h"
#include "shared/pki.h"

#define UUID "12345678-9abc-4def-8123-456789abcdef"
#define SERVER_NAME "6578616d706c65.teleport.cluster.local"

static struct ca ca;

static int setup(void **state)
{
	ca.key = pki_key_new();
	ca.cert = pki_ca_make(ca.key, "example host CA", 100);
	ca.pem = pki_cert_to_pem(ca.cert);
	return 0;
}

static int teardown(void **state)
{
	free(ca.pem);
	X509_free(ca.cert);
	EVP_PKEY_free(ca.key);
	return 0;
}

static X509 *issue(const struct host *host)
{
	EVP_PKEY *key = pki_key_new();
	char *error = NULL;
	X509 *cert = issue_host(&ca, "example", host, key, time(NULL), &error);

	if (!cert)
		fail_msg("%s", error);
	EVP_PKEY_free(key);
	return cert;
}

static int verifies_as(X509 *cert, int purpose)
{
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	int ok;

	X509_STORE_add_cert(store, ca.cert);
	X509_STORE_CTX_init(ctx, store, cert, NULL);
	X509_STORE_CTX_set_purpose(ctx, purpose);
	ok = X509_verify_cert(ctx);
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	return ok;
}

static int64_t lifetime(X509 *cert)
{
	int days, seconds;

	assert_int_equal(
		1, ASN1_TIME_diff(&days, &seconds, X509_get0_notBefore(cert),
			   X509_get0_notAfter(cert)));
	return (int64_t)days * 86400 + seconds;
}

static int count_names(X509 *cert)
{
	GENERAL_NAMES *names =
		X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	int count = names ? sk_GENERAL_NAME_num(names) : 0;

	GENERAL_NAMES_free(names);
	return count;
}

static void test_proxy_serves_under_the_cluster_name(void **state)
{
	struct host host = {.uuid = UUID, .role = IDENTITY_PROXY};
	struct host_identity id;
	const char *reason;
	X509 *cert;

	names_add(&host.names, "proxy1.example.com");
	names_add(&host.names, "10.1.2.3");
	cert = issue(&host);
	assert_int_equal(0, identity_of_host(cert, "example", &id, &reason));
	assert_int_equal(IDENTITY_PROXY, id.roles);
	assert_string_equal(UUID, id.uuid);
	assert_int_equal(1, verifies_as(cert, X509_PURPOSE_SSL_SERVER));
	assert_int_equal(1, verifies_as(cert, X509_PURPOSE_SSL_CLIENT));
	assert_int_equal(1, X509_check_host(cert, SERVER_NAME, 0, 0, NULL));
	assert_int_equal(
		1, X509_check_host(cert, "proxy1.example.com", 0, 0, NULL));
	assert_int_equal(1, X509_check_ip_asc(cert, "10.1.2.3", 0));
	assert_int_equal(4, count_names(cert));
	assert_int_equal(ISSUE_HOST_S + 3600, lifetime(cert));
	X509_free(cert);
	host_deinit(&host);
}

static void test_auth_is_of_its_own_role(void **state)
{
	struct host host = {.uuid = UUID, .role = IDENTITY_AUTH};
	struct host_identity id;
	const char *reason;
	X509 *cert = issue(&host);

	assert_int_equal(0, identity_of_host(cert, "example", &id, &reason));
	assert_int_equal(IDENTITY_AUTH, id.roles);
	assert_int_equal(1, verifies_as(cert, X509_PURPOSE_SSL_SERVER));
	X509_free(cert);
}

static void test_agent_never_serves(void **state)
{
	struct host host = {
		.uuid = UUID, .role = IDENTITY_NODE, .agent_name = "db-1"};
	struct host_identity id;
	const char *reason;
	X509 *cert;

	/* names that got into its record by whatever way stay out of the
	 * certificate */
	names_add(&host.names, "proxy1.example.com");
	cert = issue(&host);
	assert_int_equal(0, identity_of_host(cert, "example", &id, &reason));
	assert_int_equal(IDENTITY_NODE, id.roles);
	assert_string_equal("db-1", id.agent_name);
	assert_int_equal(0, verifies_as(cert, X509_PURPOSE_SSL_SERVER));
	assert_int_equal(1, verifies_as(cert, X509_PURPOSE_SSL_CLIENT));
	assert_int_equal(0, X509_check_host(cert, SERVER_NAME, 0, 0, NULL));
	assert_int_equal(1, count_names(cert));
	X509_free(cert);
	host_deinit(&host);
}

static void test_user_has_groups_and_no_more(void **state)
{
	struct issue_user user = {.name = "alice", .groups = {"dev", "ops"}};
	EVP_PKEY *key = pki_key_new();
	char *error = NULL;
	struct user_identity id;
	const char *reason;
	X509 *cert = issue_user(&ca, &user, key, time(NULL), &error);
	struct ca_set set = {.active = ca, .bundle = ca.pem};
	char *chain = issue_chain(cert, &set);

	assert_int_equal(0, identity_of_user(cert, &id, &reason));
	assert_string_equal("alice", id.name);
	assert_int_equal(2, id.group_count);
	assert_int_equal(0, verifies_as(cert, X509_PURPOSE_SSL_SERVER));
	assert_int_equal(0, count_names(cert));
	assert_int_equal(ISSUE_USER_DEFAULT_S + 3600, lifetime(cert));
	assert_string_equal(ca.pem, chain + strlen(chain) - strlen(ca.pem));
	free(chain);
	X509_free(cert);
	user.ttl_s = 600;
	cert = issue_user(&ca, &user, key, time(NULL), &error);
	assert_int_equal(600 + 3600, lifetime(cert));
	X509_free(cert);
	EVP_PKEY_free(key);
}

static void test_users_are_checked(void **state)
{
	struct issue_user good = {.name = "alice", .groups = {"dev"}};
	struct issue_user user = good;
	char text[300];

	assert_null(issue_check_user(&user));
	user.ttl_s = ISSUE_USER_MAX_S;
	assert_null(issue_check_user(&user));
	user.ttl_s++;
	assert_non_null(issue_check_user(&user));
	user.ttl_s = -1;
	assert_non_null(issue_check_user(&user));
	user = good;
	user.name = "";
	assert_non_null(issue_check_user(&user));
	user.name = "a\tb";
	assert_non_null(issue_check_user(&user));
	user.name = " a";
	assert_non_null(issue_check_user(&user));
	memset(text, 'a', sizeof(text));
	text[256] = '\0';
	user.name = text;
	assert_non_null(issue_check_user(&user));
	text[255] = '\0';
	assert_null(issue_check_user(&user));
	user = good;
	text[64] = '\0';
	user.groups[0] = text;
	assert_non_null(issue_check_user(&user));
	text[63] = '\0';
	assert_null(issue_check_user(&user));
	user.groups[0] = "";
	assert_non_null(issue_check_user(&user));
}

static void test_host_record_survives_the_store(void **state)
{
	struct host host = {.uuid = UUID,
		.role = IDENTITY_NODE,
		.agent_name = "db-1",
		.pin = "sha256:00"};
	struct host again;
	char key[HOST_KEY_MAX];
	char *stored;

	names_add(&host.names, "10.1.2.3");
	stored = host_encode(&host);
	assert_int_equal(
		0, host_decode((uint8_t *)stored, strlen(stored), &again));
	assert_string_equal(UUID, again.uuid);
	assert_int_equal(IDENTITY_NODE, again.role);
	assert_string_equal("db-1", again.agent_name);
	assert_string_equal("sha256:00", again.pin);
	assert_true(names_has(&again.names, "10.1.2.3"));
	for (size_t cut = 0; cut < strlen(stored); cut++)
		assert_int_not_equal(
			0, host_decode((uint8_t *)stored, cut, &again));
	host_key(IDENTITY_NODE, UUID, key);
	assert_string_equal("secret/host/node/" UUID, key);
	host_key(IDENTITY_PROXY, UUID, key);
	assert_string_equal("secret/host/proxy/" UUID, key);
	host_deinit(&again);
	host_deinit(&host);
	free(stored);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_proxy_serves_under_the_cluster_name),
		cmocka_unit_test(test_auth_is_of_its_own_role),
		cmocka_unit_test(test_agent_never_serves),
		cmocka_unit_test(test_user_has_groups_and_no_more),
		cmocka_unit_test(test_users_are_checked),
		cmocka_unit_test(test_host_record_survives_the_store),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
