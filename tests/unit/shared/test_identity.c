/* SPDX-License-Identifier: Apache-2.0 */
/* Who a leaf names, and every shape of leaf that must name nobody. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/identity.h"

#define UUID "12345678-9abc-4def-8123-456789abcdef"
#define CN UUID ".example"

/* A certificate, unsigned: only its subject and names are looked at. */
static X509 *leaf_new(void)
{
	X509 *cert = X509_new();

	X509_set_version(cert, X509_VERSION_3);
	return cert;
}

static void add(X509 *cert, int nid, const char *text, int len)
{
	X509_NAME *name = X509_get_subject_name(cert);

	assert_int_equal(
		1, X509_NAME_add_entry_by_NID(name, nid, V_ASN1_UTF8STRING,
			   (const unsigned char *)text, len, -1, 0));
}

static void add_uri(X509 *cert, const char *first, int len, const char *second)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	const char *texts[] = {first, second};

	for (int i = 0; i < 2 && texts[i]; i++) {
		GENERAL_NAME *name = GENERAL_NAME_new();
		ASN1_IA5STRING *value = ASN1_IA5STRING_new();

		ASN1_STRING_set(value, texts[i], i ? -1 : len);
		GENERAL_NAME_set0_value(name, GEN_URI, value);
		sk_GENERAL_NAME_push(names, name);
	}
	X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, 0);
	GENERAL_NAMES_free(names);
}

/* Takes cert; the reason when it was refused, else NULL. */
static const char *host(X509 *cert, struct host_identity *out)
{
	const char *reason = NULL;
	struct host_identity before;
	int ret;

	memset(out, 0x55, sizeof(*out));
	before = *out;
	ret = identity_of_host(cert, "example", out, &reason);
	X509_free(cert);
	if (ret == 0) {
		assert_null(reason);
		return NULL;
	}
	assert_int_equal(-EBADMSG, ret);
	assert_non_null(reason);
	assert_memory_equal(&before, out, sizeof(before));
	return reason;
}

static X509 *host_leaf(const char *cn, const char *role)
{
	X509 *cert = leaf_new();

	if (cn)
		add(cert, NID_commonName, cn, -1);
	if (role)
		add(cert, NID_organizationName, role, -1);
	return cert;
}

static void test_proxy_is_read(void **state)
{
	struct host_identity id;
	X509 *cert = host_leaf(CN, "Proxy");

	assert_null(host(cert, &id));
	assert_int_equal(IDENTITY_PROXY, id.roles);
	assert_string_equal(UUID, id.uuid);
	assert_string_equal("example", id.cluster);
	assert_string_equal("", id.agent_name);
}

static void test_several_roles_are_read(void **state)
{
	struct host_identity id;
	X509 *cert = host_leaf(CN, "Auth");

	add(cert, NID_organizationName, "Admin", -1);
	add(cert, NID_organizationName, "Proxy", -1);
	assert_null(host(cert, &id));
	assert_int_equal(IDENTITY_PROXY | IDENTITY_AUTH, id.roles);
}

static void test_agent_name_is_read(void **state)
{
	struct host_identity id;
	X509 *cert = host_leaf(CN, "Node");

	add_uri(cert, "spiffe://other/thing", -1, "peerway://agent/db-1");
	assert_null(host(cert, &id));
	assert_int_equal(IDENTITY_NODE, id.roles);
	assert_string_equal("db-1", id.agent_name);
}

static void test_agent_name_is_for_agents_only(void **state)
{
	struct host_identity id;
	X509 *cert = host_leaf(CN, "Proxy");

	add_uri(cert, "peerway://agent/db-1", -1, NULL);
	assert_null(host(cert, &id));
	assert_string_equal("", id.agent_name);
}

static void test_bad_agent_names_are_refused(void **state)
{
	static const char *const bad[] = {"peerway://agent/",
		"peerway://agent/UPPER", "peerway://agent/a.b",
		"peerway://agent/a/b",
		("peerway://agent/0123456789012345678901234567890123456789"
		 "012345678901234567890123")};
	struct host_identity id;
	X509 *cert;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cert = host_leaf(CN, "Node");
		add_uri(cert, bad[i], -1, NULL);
		assert_string_equal("bad agent name", host(cert, &id));
	}
	cert = host_leaf(CN, "Node");
	add_uri(cert, "peerway://agent/a\0b", 19, NULL);
	assert_string_equal("bad agent name", host(cert, &id));
	cert = host_leaf(CN, "Node");
	add_uri(cert, "peerway://agent/a", -1, "peerway://agent/b");
	assert_string_equal("several agent names", host(cert, &id));
}

static void test_bad_common_names_are_refused(void **state)
{
	static const char *const bad[] = {UUID, UUID "-example", "example",
		"12345678-9abc-4def-8123-456789abcdeF.example", "x" CN,
		UUID ".."};
	struct host_identity id;
	X509 *cert;

	assert_string_equal("missing identity username",
		host(host_leaf(NULL, "Proxy"), &id));
	assert_string_equal(
		"missing identity username", host(host_leaf("", "Proxy"), &id));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_non_null(host(host_leaf(bad[i], "Proxy"), &id));

	cert = host_leaf(CN, "Proxy");
	add(cert, NID_commonName, CN, -1);
	assert_string_equal("several common names", host(cert, &id));

	cert = host_leaf(NULL, "Proxy");
	add(cert, NID_commonName, CN "\0.evil", sizeof(CN "\0.evil") - 1);
	assert_non_null(host(cert, &id));
	cert = host_leaf(NULL, "Proxy");
	add(cert, NID_commonName, CN "\0", sizeof(CN));
	assert_non_null(host(cert, &id));
}

static void test_other_clusters_are_refused(void **state)
{
	struct host_identity id;

	assert_string_equal("certificate of another cluster",
		host(host_leaf(UUID ".other", "Proxy"), &id));
	assert_string_equal("certificate of another cluster",
		host(host_leaf(UUID ".example.org", "Proxy"), &id));
	assert_string_equal("certificate of another cluster",
		host(host_leaf(UUID ".", "Proxy"), &id));
}

static void test_missing_role_is_refused(void **state)
{
	struct host_identity id;
	X509 *cert;

	assert_string_equal(
		"no role in certificate", host(host_leaf(CN, NULL), &id));
	assert_string_equal(
		"no role in certificate", host(host_leaf(CN, "proxy"), &id));
	cert = host_leaf(CN, NULL);
	add(cert, NID_organizationName, "Proxy\0", 6);
	assert_non_null(host(cert, &id));
}

static void test_user_with_groups_is_read(void **state)
{
	struct user_identity id;
	const char *reason;
	X509 *cert = host_leaf("alice@example.org", "dev");

	add(cert, NID_organizationName, "peerway-admin", -1);
	assert_int_equal(0, identity_of_user(cert, &id, &reason));
	assert_null(reason);
	assert_string_equal("alice@example.org", id.name);
	assert_int_equal(2, id.group_count);
	assert_string_equal("dev", id.groups[0]);
	assert_string_equal("peerway-admin", id.groups[1]);
	X509_free(cert);
}

static void test_groups_are_bounded(void **state)
{
	struct user_identity id;
	const char *reason;
	X509 *cert = host_leaf("alice", NULL);
	char group[IDENTITY_NAME_MAX + 1];

	for (int i = 0; i < IDENTITY_GROUPS_MAX; i++) {
		snprintf(group, sizeof(group), "g%d", i);
		add(cert, NID_organizationName, group, -1);
	}
	assert_int_equal(0, identity_of_user(cert, &id, &reason));
	assert_int_equal(IDENTITY_GROUPS_MAX, id.group_count);
	add(cert, NID_organizationName, "one-more", -1);
	assert_int_equal(-EBADMSG, identity_of_user(cert, &id, &reason));
	assert_string_equal("too many organizations", reason);
	X509_free(cert);

	cert = host_leaf("alice", NULL);
	memset(group, 'g', sizeof(group));
	add(cert, NID_organizationName, group, IDENTITY_NAME_MAX);
	assert_int_equal(-EBADMSG, identity_of_user(cert, &id, &reason));
	X509_free(cert);
}

static void test_bad_user_names_are_refused(void **state)
{
	struct user_identity id;
	const char *reason;
	char name[300];
	X509 *cert = host_leaf("", "dev");

	assert_int_equal(-EBADMSG, identity_of_user(cert, &id, &reason));
	X509_free(cert);
	cert = leaf_new();
	add(cert, NID_commonName, "root\0bob", 8);
	assert_int_equal(-EBADMSG, identity_of_user(cert, &id, &reason));
	X509_free(cert);
	cert = host_leaf("new\nline", NULL);
	assert_int_equal(-EBADMSG, identity_of_user(cert, &id, &reason));
	X509_free(cert);
	cert = leaf_new();
	memset(name, 'n', sizeof(name));
	add(cert, NID_commonName, name, 256);
	assert_int_equal(-EBADMSG, identity_of_user(cert, &id, &reason));
	X509_free(cert);
}

static void test_server_name_is_the_encoded_cluster(void **state)
{
	char name[IDENTITY_SERVER_NAME_MAX];
	char longest[400];

	identity_server_name("example", name);
	assert_string_equal("6578616d706c65.teleport.cluster.local", name);
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	identity_server_name(longest, name);
	assert_int_equal(510 + 23, strlen(name));
}

static void test_names_and_uuids(void **state)
{
	char uuid[37];
	char other[37];

	assert_true(identity_name_is_valid("db-host-1"));
	assert_false(identity_name_is_valid(""));
	assert_false(identity_name_is_valid("a.b"));
	assert_false(identity_name_is_valid("A"));
	assert_true(identity_name_is_valid("012345678901234567890123456789"
					   "012345678901234567890123456789"
					   "012"));
	assert_false(identity_name_is_valid("012345678901234567890123456789"
					    "012345678901234567890123456789"
					    "0123"));
	identity_uuid_make(uuid);
	identity_uuid_make(other);
	assert_true(identity_uuid_is_valid(uuid));
	assert_string_not_equal(uuid, other);
	assert_int_equal('4', uuid[14]);
	assert_false(identity_uuid_is_valid(""));
	assert_false(identity_uuid_is_valid(UUID "0"));
	assert_false(
		identity_uuid_is_valid("123456789abc-4def-8123-456789abcdef0"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_proxy_is_read),
		cmocka_unit_test(test_several_roles_are_read),
		cmocka_unit_test(test_agent_name_is_read),
		cmocka_unit_test(test_agent_name_is_for_agents_only),
		cmocka_unit_test(test_bad_agent_names_are_refused),
		cmocka_unit_test(test_bad_common_names_are_refused),
		cmocka_unit_test(test_other_clusters_are_refused),
		cmocka_unit_test(test_missing_role_is_refused),
		cmocka_unit_test(test_user_with_groups_is_read),
		cmocka_unit_test(test_groups_are_bounded),
		cmocka_unit_test(test_bad_user_names_are_refused),
		cmocka_unit_test(test_server_name_is_the_encoded_cluster),
		cmocka_unit_test(test_names_and_uuids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
