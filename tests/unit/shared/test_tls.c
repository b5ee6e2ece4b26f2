/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identities from files, and handshakes over a pair of memory pipes: versions,
 * who trusts whom, the choice of a context in the ClientHello callback, first
 * contact by pin.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/identity.h"
#include "shared/pki.h"
#include "shared/tls.h"

#define UUID "12345678-9abc-4def-8123-456789abcdef"
#define SERVER_NAME "6578616d706c65.teleport.cluster.local"

struct fixture {
	char dir[64];
	EVP_PKEY *host_key, *user_key;
	X509 *host_ca, *user_ca;
};

static void write_file(struct fixture *f, const char *name, const char *text)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void write_cert(struct fixture *f, const char *name, X509 *cert)
{
	char *pem = pki_cert_to_pem(cert);

	write_file(f, name, pem);
	free(pem);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/peerway-tls-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->host_key = pki_key_new();
	f->user_key = pki_key_new();
	f->host_ca = pki_ca_make(f->host_key, "host CA", 10);
	f->user_ca = pki_ca_make(f->user_key, "user CA", 10);
	write_cert(f, "host_ca.pem", f->host_ca);
	write_cert(f, "user_ca.pem", f->user_ca);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {
		"cert.pem", "key.pem", "host_ca.pem", "user_ca.pem"};
	struct fixture *f = *state;
	char path[128];

	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/%s", f->dir, names[i]);
		unlink(path);
	}
	rmdir(f->dir);
	X509_free(f->host_ca);
	X509_free(f->user_ca);
	EVP_PKEY_free(f->host_key);
	EVP_PKEY_free(f->user_key);
	free(f);
	return 0;
}

/* cert.pem and key.pem of a daemon, an agent or (from the user CA) a user. */
static void write_identity(struct fixture *f, const char *role, bool user)
{
	const char *const roles[] = {role, NULL};
	static const char *const dns[] = {SERVER_NAME, NULL};
	struct pki_template template = {.common_name = UUID ".example",
		.organizations = roles,
		.not_before = time(NULL) - 60,
		.not_after = time(NULL) + 3600};
	EVP_PKEY *key = pki_key_new();
	char *error = NULL;
	char *pem = pki_key_to_pem(key);
	X509 *cert;

	if (!strcmp(role, "Proxy")) {
		template.dns_names = dns;
		template.server = true;
	}
	cert = pki_issue(&template, key, user ? f->user_ca : f->host_ca,
		user ? f->user_key : f->host_key, &error);
	assert_non_null(cert);
	write_cert(f, "cert.pem", cert);
	write_file(f, "key.pem", pem);
	free(pem);
	X509_free(cert);
	EVP_PKEY_free(key);
}

static struct tls_identity *make_identity(struct fixture *f, const char *role)
{
	struct tls_identity *identity;
	char *error = NULL;

	write_identity(f, role, false);
	identity = tls_identity_load(f->dir, &error);
	assert_non_null(identity);
	return identity;
}

/* A user's: its host CA file holds the user CA that signed it. */
static struct tls_identity *make_user(struct fixture *f)
{
	struct tls_identity *identity;
	char *error = NULL;

	write_identity(f, "dev", true);
	write_cert(f, "host_ca.pem", f->user_ca);
	identity = tls_identity_load(f->dir, &error);
	write_cert(f, "host_ca.pem", f->host_ca);
	assert_non_null(identity);
	/* it dials proxies, which the host CA vouches for */
	sk_X509_push(identity->host_ca, f->host_ca);
	X509_up_ref(f->host_ca);
	return identity;
}

/* ---- identities ---- */

static void test_identity_is_loaded_with_its_ca_in_the_chain(void **state)
{
	struct tls_identity *identity = make_identity(*state, "Proxy");
	const char *second;

	assert_int_equal(1, sk_X509_num(identity->chain));
	second = strstr(identity->cert_pem + 10, "-----BEGIN");
	assert_non_null(second);
	assert_string_equal(identity->host_ca_pem, second);
	assert_int_equal(1, sk_X509_num(identity->user_ca));
	assert_in_range(tls_identity_not_after(identity), time(NULL) + 3000,
		time(NULL) + 3600);
	assert_ptr_equal(identity, tls_identity_ref(identity));
	tls_identity_unref(identity);
	tls_identity_unref(identity);
	tls_identity_unref(NULL);
}

static void assert_load_fails(struct fixture *f, const char *why)
{
	char *error = NULL;

	assert_null(tls_identity_load(f->dir, &error));
	assert_non_null(error);
	if (!strstr(error, why))
		fail_msg("\"%s\" lacks \"%s\"", error, why);
	free(error);
	assert_int_equal(0, ERR_peek_error());
}

static void test_torn_identities_are_refused(void **state)
{
	struct fixture *f = *state;
	EVP_PKEY *other = pki_key_new();
	char *pem = pki_key_to_pem(other);

	assert_load_fails(f, "cert.pem: No such file");
	write_identity(f, "Proxy", false);
	write_file(f, "key.pem", pem);
	assert_load_fails(f, "key does not belong");
	write_file(f, "key.pem", "-----BEGIN PRIVATE KEY-----\nMIGH");
	assert_load_fails(f, "key.pem: no usable private key");
	write_identity(f, "Proxy", false);
	write_file(f, "user_ca.pem", "");
	assert_load_fails(f, "user_ca.pem: not a whole PEM");
	write_cert(f, "user_ca.pem", f->user_ca);
	write_cert(f, "host_ca.pem", f->user_ca);
	assert_load_fails(f, "not issued by the host CA");
	free(pem);
	EVP_PKEY_free(other);
}

/* As `peerctl identity issue` leaves it: a user's leaf beside both CAs. */
static void test_a_users_identity_leads_to_the_user_ca(void **state)
{
	struct fixture *f = *state;
	struct tls_identity *identity;
	char *error = NULL;

	write_identity(f, "ops", true);
	identity = tls_identity_load(f->dir, &error);
	assert_non_null(identity);
	assert_int_equal(1, sk_X509_num(identity->chain));
	assert_int_equal(
		0, X509_cmp(sk_X509_value(identity->chain, 0), f->user_ca));
	tls_identity_unref(identity);
}

static void test_user_ca_may_be_absent(void **state)
{
	struct fixture *f = *state;
	struct tls_identity *identity;
	char path[128];

	snprintf(path, sizeof(path), "%s/user_ca.pem", f->dir);
	unlink(path);
	identity = make_identity(f, "Node");
	assert_int_equal(0, sk_X509_num(identity->user_ca));
	tls_identity_unref(identity);
}

/* ---- handshakes ---- */

struct pair {
	SSL *client, *server;
	BIO *a, *b;
};

static void pair_init(struct pair *pair, SSL_CTX *client, SSL_CTX *server)
{
	pair->client = SSL_new(client);
	pair->server = SSL_new(server);
	assert_int_equal(1, BIO_new_bio_pair(&pair->a, 0, &pair->b, 0));
	SSL_set_bio(pair->client, pair->a, pair->a);
	SSL_set_bio(pair->server, pair->b, pair->b);
	SSL_set_connect_state(pair->client);
	SSL_set_accept_state(pair->server);
}

static void pair_deinit(struct pair *pair)
{
	SSL_free(pair->client);
	SSL_free(pair->server);
	ERR_clear_error();
}

/* True when both sides are done; a server that refuses a client's certificate
 * does so after the client thinks it is. */
static bool shake(struct pair *pair)
{
	for (int i = 0; i < 10; i++) {
		int c = SSL_do_handshake(pair->client);
		int s;
		char byte;

		if (c <= 0 && SSL_get_error(pair->client, c) == SSL_ERROR_SSL)
			return false;
		ERR_clear_error();
		s = SSL_do_handshake(pair->server);
		if (s <= 0 && SSL_get_error(pair->server, s) == SSL_ERROR_SSL)
			return false;
		ERR_clear_error();
		if (c == 1 && s == 1)
			return SSL_write(pair->server, "x", 1) == 1 &&
			       SSL_read(pair->client, &byte, 1) == 1;
	}
	return false;
}

static bool meet(SSL_CTX *client, SSL_CTX *server)
{
	struct pair pair;
	bool ok;

	pair_init(&pair, client, server);
	assert_int_equal(0, tls_expect_name(pair.client, SERVER_NAME, NULL));
	ok = shake(&pair);
	pair_deinit(&pair);
	return ok;
}

static SSL_CTX *server_ctx(struct tls_identity *identity, STACK_OF(X509) * cas,
	enum tls_verify verify)
{
	char *error = NULL;
	SSL_CTX *ctx = tls_server_ctx(identity, cas, verify, &error);

	assert_non_null(ctx);
	return ctx;
}

static SSL_CTX *client_ctx(struct tls_identity *identity)
{
	char *error = NULL;
	SSL_CTX *ctx = tls_client_ctx(identity, &error);

	assert_non_null(ctx);
	return ctx;
}

static void test_only_tls_1_3(void **state)
{
	struct tls_identity *proxy = make_identity(*state, "Proxy");
	SSL_CTX *server =
		server_ctx(proxy, proxy->host_ca, TLS_VERIFY_REQUIRED);
	SSL_CTX *client = client_ctx(proxy);
	struct pair pair;

	pair_init(&pair, client, server);
	assert_true(shake(&pair));
	assert_string_equal("TLSv1.3", SSL_get_version(pair.server));
	assert_false(SSL_session_reused(pair.server));
	pair_deinit(&pair);
	SSL_CTX_set_min_proto_version(client, TLS1_2_VERSION);
	SSL_CTX_set_max_proto_version(client, TLS1_2_VERSION);
	assert_false(meet(client, server));
	SSL_CTX_free(client);
	SSL_CTX_free(server);
	tls_identity_unref(proxy);
}

static void test_no_session_is_ever_resumed(void **state)
{
	struct tls_identity *proxy = make_identity(*state, "Proxy");
	SSL_CTX *server =
		server_ctx(proxy, proxy->host_ca, TLS_VERIFY_REQUIRED);
	SSL_CTX *client = client_ctx(proxy);
	struct pair pair;
	SSL_SESSION *session;

	pair_init(&pair, client, server);
	assert_true(shake(&pair));
	session = SSL_get1_session(pair.client);
	assert_false(SSL_SESSION_is_resumable(session));
	SSL_SESSION_free(session);
	pair_deinit(&pair);
	SSL_CTX_free(client);
	SSL_CTX_free(server);
	tls_identity_unref(proxy);
}

static void test_names_and_purposes_are_verified(void **state)
{
	struct tls_identity *proxy = make_identity(*state, "Proxy");
	struct tls_identity *agent = make_identity(*state, "Node");
	SSL_CTX *server = server_ctx(proxy, proxy->host_ca, TLS_VERIFY_NONE);
	SSL_CTX *agents = server_ctx(agent, proxy->host_ca, TLS_VERIFY_NONE);
	SSL_CTX *client = client_ctx(agent);
	struct pair pair;

	assert_true(meet(client, server));
	/* an agent's key cannot serve, whoever dials it */
	assert_false(meet(client, agents));
	pair_init(&pair, client, agents);
	assert_false(shake(&pair));
	pair_deinit(&pair);
	pair_init(&pair, client, server);
	assert_int_equal(
		0, tls_expect_name(pair.client, "other.example", NULL));
	assert_false(shake(&pair));
	pair_deinit(&pair);
	SSL_CTX_free(client);
	SSL_CTX_free(agents);
	SSL_CTX_free(server);
	tls_identity_unref(agent);
	tls_identity_unref(proxy);
}

static void test_cas_do_not_cross(void **state)
{
	struct tls_identity *proxy = make_identity(*state, "Proxy");
	struct tls_identity *agent = make_identity(*state, "Node");
	struct tls_identity *user = make_user(*state);
	struct tls_identity nobody = {.host_ca = proxy->host_ca};
	SSL_CTX *hosts = server_ctx(proxy, proxy->host_ca, TLS_VERIFY_REQUIRED);
	SSL_CTX *users = server_ctx(proxy, proxy->user_ca, TLS_VERIFY_OPTIONAL);
	SSL_CTX *as_agent = client_ctx(agent);
	SSL_CTX *as_user = client_ctx(user);
	SSL_CTX *as_nobody = client_ctx(&nobody);

	assert_true(meet(as_agent, hosts));
	assert_true(meet(as_user, users));
	assert_false(meet(as_user, hosts));
	assert_false(meet(as_agent, users));
	assert_true(meet(as_nobody, users));
	assert_false(meet(as_nobody, hosts));
	SSL_CTX_free(as_nobody);
	SSL_CTX_free(as_user);
	SSL_CTX_free(as_agent);
	SSL_CTX_free(users);
	SSL_CTX_free(hosts);
	tls_identity_unref(user);
	tls_identity_unref(agent);
	tls_identity_unref(proxy);
}

/* ---- the choice by ALPN ---- */

static int on_hello(SSL *ssl, int *alert, void *arg)
{
	if (tls_hello_offers(ssl, TLS_ALPN_TUNNEL))
		tls_use_ctx(ssl, arg);
	return SSL_CLIENT_HELLO_SUCCESS;
}

/* As a wire list; NULL offers nothing. What was chosen, "" for none, NULL when
 * the handshake failed. Static text. */
static const char *offer(SSL_CTX *client, SSL_CTX *server, const char *wire)
{
	static char chosen[64];
	const unsigned char *data;
	unsigned len;
	struct pair pair;
	bool ok;

	pair_init(&pair, client, server);
	if (wire)
		SSL_set_alpn_protos(
			pair.client, (const unsigned char *)wire, strlen(wire));
	ok = shake(&pair);
	SSL_get0_alpn_selected(pair.client, &data, &len);
	snprintf(chosen, sizeof(chosen), "%.*s", (int)len, (const char *)data);
	pair_deinit(&pair);
	return ok ? chosen : NULL;
}

static void test_alpn_chooses_the_trust_store(void **state)
{
	struct tls_identity *proxy = make_identity(*state, "Proxy");
	struct tls_identity *agent = make_identity(*state, "Node");
	struct tls_identity *user = make_user(*state);
	SSL_CTX *hosts = server_ctx(proxy, proxy->host_ca, TLS_VERIFY_REQUIRED);
	SSL_CTX *users = server_ctx(proxy, proxy->user_ca, TLS_VERIFY_OPTIONAL);
	SSL_CTX *as_agent = client_ctx(agent);
	SSL_CTX *as_user = client_ctx(user);

	tls_ctx_set_alpn(hosts, TLS_ALPN_TUNNEL);
	tls_ctx_set_alpn(users, "http/1.1");
	SSL_CTX_set_client_hello_cb(users, on_hello, hosts);

	assert_string_equal(
		TLS_ALPN_TUNNEL, offer(as_agent, users, "\x0epeerway-tunnel"));
	assert_string_equal(TLS_ALPN_TUNNEL,
		offer(as_agent, users, "\x02h2\x0epeerway-tunnel\x03xyz"));
	assert_null(offer(as_agent, users, "\x0fpeerway-tunnel2"));
	assert_null(offer(as_agent, users, NULL));
	assert_string_equal(
		"http/1.1", offer(as_user, users, "\x02h2\x08http/1.1"));
	assert_string_equal("", offer(as_user, users, "\x02h2"));
	assert_string_equal("", offer(as_user, users, NULL));
	/* the verify mode came along: a user's certificate, or none, is refused
	 * where the host CA is required */
	assert_null(offer(as_user, users, "\x0epeerway-tunnel"));
	SSL_CTX_free(as_user);
	SSL_CTX_free(as_agent);
	SSL_CTX_free(users);
	SSL_CTX_free(hosts);
	tls_identity_unref(user);
	tls_identity_unref(agent);
	tls_identity_unref(proxy);
}

static void test_set_alpn_offers_one_name(void **state)
{
	struct tls_identity *proxy = make_identity(*state, "Proxy");
	SSL_CTX *server =
		server_ctx(proxy, proxy->host_ca, TLS_VERIFY_REQUIRED);
	SSL_CTX *client = client_ctx(proxy);
	const unsigned char *data;
	unsigned len;
	struct pair pair;

	tls_ctx_set_alpn(server, TLS_ALPN_AGENT);
	pair_init(&pair, client, server);
	assert_int_equal(0, tls_set_alpn(pair.client, TLS_ALPN_AGENT));
	assert_true(tls_set_alpn(pair.client, "") < 0);
	assert_true(shake(&pair));
	SSL_get0_alpn_selected(pair.server, &data, &len);
	assert_int_equal(strlen(TLS_ALPN_AGENT), len);
	pair_deinit(&pair);
	SSL_CTX_free(client);
	SSL_CTX_free(server);
	tls_identity_unref(proxy);
}

/* ---- first contact ---- */

static void test_joiner_with_only_the_pin(void **state)
{
	struct fixture *f = *state;
	struct tls_identity *proxy = make_identity(f, "Proxy");
	SSL_CTX *server =
		server_ctx(proxy, proxy->host_ca, TLS_VERIFY_OPTIONAL);
	char pin[80];
	char *error = NULL;
	SSL_CTX *client;
	struct pair pair;
	X509 *ca;

	pki_spki_pin(f->host_key, pin, sizeof(pin));
	client = tls_pin_ctx(pin, &error);
	assert_non_null(client);
	pair_init(&pair, client, server);
	assert_null(tls_pinned_ca(pair.client, pin));
	assert_int_equal(0, tls_expect_name(pair.client, SERVER_NAME, NULL));
	assert_true(shake(&pair));
	ca = tls_pinned_ca(pair.client, pin);
	assert_non_null(ca);
	assert_int_equal(0, X509_cmp(ca, f->host_ca));
	X509_free(ca);
	pair_deinit(&pair);

	/* the name still counts */
	pair_init(&pair, client, server);
	tls_expect_name(pair.client, "other.example", NULL);
	assert_false(shake(&pair));
	pair_deinit(&pair);
	SSL_CTX_free(client);

	pki_spki_pin(f->user_key, pin, sizeof(pin));
	client = tls_pin_ctx(pin, &error);
	assert_false(meet(client, server));
	SSL_CTX_free(client);
	SSL_CTX_free(server);
	tls_identity_unref(proxy);
}

/* A leaf whose own key has the pin, or one that an unrelated CA signed and that
 * comes with the pinned CA's certificate in tow. */
static void test_pin_is_of_the_issuer_only(void **state)
{
	struct fixture *f = *state;
	struct tls_identity *proxy = make_identity(f, "Proxy");
	EVP_PKEY *evil_key = pki_key_new();
	X509 *evil_ca = pki_ca_make(evil_key, "host CA", 10);
	static const char *const dns[] = {SERVER_NAME, NULL};
	struct pki_template template = {.common_name = "x",
		.dns_names = dns,
		.server = true,
		.not_after = time(NULL) + 3600};
	char *error = NULL;
	X509 *evil =
		pki_issue(&template, proxy->key, evil_ca, evil_key, &error);
	SSL_CTX *server;
	SSL_CTX *client;
	char pin[80];

	pki_spki_pin(proxy->key, pin, sizeof(pin));
	client = tls_pin_ctx(pin, &error);
	server = server_ctx(proxy, proxy->host_ca, TLS_VERIFY_NONE);
	assert_false(meet(client, server));
	SSL_CTX_free(client);
	SSL_CTX_free(server);

	pki_spki_pin(f->host_key, pin, sizeof(pin));
	client = tls_pin_ctx(pin, &error);
	X509_free(proxy->leaf);
	proxy->leaf = evil;
	server = server_ctx(proxy, proxy->host_ca, TLS_VERIFY_NONE);
	assert_false(meet(client, server));
	SSL_CTX_free(client);
	SSL_CTX_free(server);
	X509_free(evil_ca);
	EVP_PKEY_free(evil_key);
	tls_identity_unref(proxy);
}

static void test_bad_pins_are_refused(void **state)
{
	static const char *const bad[] = {"", "sha256:", "sha256:12",
		("md5:0123456789012345678901234567890123456789012345678901"
		 "23456789"),
		("sha256:g123456789012345678901234567890123456789012345678"
		 "901234567890123")};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char *error = NULL;

		assert_null(tls_pin_ctx(bad[i], &error));
		assert_non_null(error);
		free(error);
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_identity_is_loaded_with_its_ca_in_the_chain),
		TEST(test_torn_identities_are_refused),
		TEST(test_a_users_identity_leads_to_the_user_ca),
		TEST(test_user_ca_may_be_absent),
		TEST(test_only_tls_1_3),
		TEST(test_no_session_is_ever_resumed),
		TEST(test_names_and_purposes_are_verified),
		TEST(test_cas_do_not_cross),
		TEST(test_alpn_chooses_the_trust_store),
		TEST(test_set_alpn_offers_one_name),
		TEST(test_joiner_with_only_the_pin),
		TEST(test_pin_is_of_the_issuer_only),
		TEST(test_bad_pins_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
