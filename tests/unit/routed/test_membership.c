/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host joins and renews at an auth server that this test plays, in one
 * process: pin, token, lost answers, wrong answers, renewal at two thirds of a
 * certificate's life, a restart.
 */
#include "tests/unit/test.h"

#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth.pb-c.h"
#include "routed/membership.h"
#include "tests/unit/host_ca.h"

#define HOST "12345678-9abc-4def-8123-456789abcdef"
#define OTHER "22222222-9abc-4def-8123-456789abcdef"
#define TOKEN "a-good-token"

struct fixture {
	struct loop *loop;
	struct rpc_cq *cq;
	char dir[64];
	struct conf conf;
	char *auth_servers[1];
	char pin[80];

	/* the auth server */
	struct ca ca;
	struct rpc_identity *server_holder;
	struct rpc_server *server;
	bool stopped;
	unsigned joins;
	unsigned renewals;
	bool lose_answers;
	char *host_ca;	      /* what is answered; NULL: the CA's own */
	const char *issue_to; /* whose certificate is issued */
	int from, to;	      /* its life, seconds from now */
	EVP_PKEY *joined_key; /* of the last join */

	/* the host */
	struct membership *membership;
	struct rpc_identity *holder;
	struct rpc_channel *channel;
	unsigned identities;
	char directory[200];
};

/* ---- the auth server ---- */

static void answer(
	struct fixture *f, struct rpc_server_call *call, EVP_PKEY *key)
{
	Peerway__Auth__JoinResponse response =
		PEERWAY__AUTH__JOIN_RESPONSE__INIT;
	X509 *cert =
		ca_issue(&f->ca, key, "Proxy", f->issue_to, f->from, f->to);

	response.cert_chain = pki_cert_to_pem(cert);
	response.host_ca =
		f->host_ca ? xstrdup(f->host_ca) : pki_cert_to_pem(f->ca.cert);
	response.user_ca = xstrdup(response.host_ca);
	response.cluster_name = (char *)CLUSTER;
	if (f->lose_answers)
		rpc_fail(call, GRPC_STATUS_UNAVAILABLE, "lost on the way");
	else
		rpc_reply(call, &response.base);
	free(response.cert_chain);
	free(response.host_ca);
	free(response.user_ca);
	X509_free(cert);
}

static void handle_join(struct rpc_server_call *call, void *arg,
	const struct host_identity *caller, const ProtobufCMessage *message)
{
	const Peerway__Auth__JoinRequest *request = (const void *)message;
	struct fixture *f = arg;
	char *error = NULL;

	f->joins++;
	if (strcmp(request->token, TOKEN) != 0) {
		rpc_fail(call, GRPC_STATUS_UNAUTHENTICATED, "no such token");
		return;
	}
	assert_int_equal(request->role, PEERWAY__AUTH__ROLE__ROLE_PROXY);
	assert_string_equal(request->host_uuid, HOST);
	EVP_PKEY_free(f->joined_key);
	f->joined_key =
		pki_csr_key(request->csr.data, request->csr.len, &error);
	assert_non_null(f->joined_key);
	answer(f, call, f->joined_key);
}

static void handle_renew(struct rpc_server_call *call, void *arg,
	const struct host_identity *caller, const ProtobufCMessage *message)
{
	const Peerway__Auth__RenewRequest *request = (const void *)message;
	const unsigned char *der = request->cert.data;
	struct fixture *f = arg;
	char *error = NULL;
	EVP_PKEY *key =
		pki_csr_key(request->csr.data, request->csr.len, &error);
	X509 *cert = d2i_X509(NULL, &der, (long)request->cert.len);

	assert_non_null(key);
	assert_non_null(cert);
	assert_int_equal(EVP_PKEY_eq(key, X509_get0_pubkey(cert)), 1);
	assert_int_equal(EVP_PKEY_eq(key, f->joined_key), 1);
	f->renewals++;
	f->from = -60;
	f->to = 3600;
	answer(f, call, key);
	X509_free(cert);
	EVP_PKEY_free(key);
}

static const struct rpc_method methods[] = {
	{"/peerway.auth.AuthService/Join",
		&peerway__auth__join_request__descriptor, 0, handle_join},
	{"/peerway.auth.AuthService/Renew",
		&peerway__auth__renew_request__descriptor, IDENTITY_PROXY,
		handle_renew},
	{NULL, NULL, 0, NULL},
};

static void serve_as(struct fixture *f, const char *role)
{
	struct tls_identity *identity = ca_identity(&f->ca, role, OTHER);

	if (f->server_holder)
		rpc_identity_replace(f->server_holder, identity);
	else
		f->server_holder = rpc_identity_new(identity);
	tls_identity_unref(identity);
}

/* ---- the host ---- */

static void on_identity(
	void *arg, struct tls_identity *identity, const char *directory)
{
	char name[IDENTITY_SERVER_NAME_MAX];
	struct fixture *f = arg;

	f->identities++;
	snprintf(f->directory, sizeof(f->directory), "%s", directory);
	rpc_channel_free(f->channel);
	rpc_identity_free(f->holder);
	f->holder = rpc_identity_new(identity);
	identity_server_name(CLUSTER, name);
	f->channel = rpc_channel_new(f->cq, f->auth_servers[0], name,
		rpc_channel_creds(
			f->holder, CLUSTER, IDENTITY_AUTH, NULL, NULL, NULL));
}

static struct rpc_channel *channel_of(void *arg)
{
	struct fixture *f = arg;

	return f->channel;
}

static const struct membership_ops ops = {on_identity, channel_of};

static void begin(struct fixture *f)
{
	char *error = NULL;

	f->membership = membership_new(f->loop, f->cq, &f->conf, HOST, &ops, f);
	assert_int_equal(membership_start(f->membership, &error), 0);
}

static void on_tick(void *arg)
{
}

#define UNTIL(f, condition)                                          \
	do {                                                         \
		int64_t end = loop_now((f)->loop) + 15000;           \
		while (!(condition)) {                               \
			struct timer *tick =                         \
				timer_new((f)->loop, on_tick, NULL); \
			assert_true(loop_now((f)->loop) < end);      \
			timer_set(tick, 20);                         \
			loop_turn((f)->loop, true);                  \
			timer_free(tick);                            \
		}                                                    \
	} while (0)

static void write_token(struct fixture *f, const char *token)
{
	FILE *file = fopen(f->conf.join.token_file, "w");

	assert_non_null(file);
	fprintf(file, "%s\n", token);
	fclose(file);
}

static void make_conf(struct fixture *f)
{
	struct conf *conf = &f->conf;

	conf->cluster_name = (char *)CLUSTER;
	conf->data_dir = f->dir;
	conf->auth_servers = f->auth_servers;
	conf->auth_servers_count = 1;
	conf->join.token_file = xasprintf("%s/token", f->dir);
	conf->join.ca_pin = f->pin;
	conf->identity.cert = (char *)"";
	conf->proxy.listen_addr = (char *)"127.0.0.1:3080";
	conf->proxy.tunnel_listen_addr = (char *)"127.0.0.1:3024";
	conf->proxy.peer_listen_addr = (char *)"127.0.0.1:3021";
	conf->proxy.peer_public_addr = (char *)"";
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	char *error = NULL;

	strcpy(f->dir, "/tmp/peerway-member-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->loop = loop_new();
	rpc_require_tls13();
	f->cq = rpc_cq_new(f->loop, 1);
	f->ca = ca_make();
	pki_spki_pin(f->ca.key, f->pin, sizeof(f->pin));
	serve_as(f, "Auth");
	f->server = rpc_server_new(f->cq, "127.0.0.1:0",
		rpc_server_creds(f->server_holder, false), CLUSTER, methods, f,
		&error);
	assert_non_null(f->server);
	f->auth_servers[0] =
		xasprintf("127.0.0.1:%d", rpc_server_port(f->server));
	f->issue_to = HOST;
	f->from = -60;
	f->to = 3600;
	make_conf(f);
	write_token(f, TOKEN);
	*state = f;
	return 0;
}

static void on_stopped(void *arg)
{
	struct fixture *f = arg;

	f->stopped = true;
}

static int remove_one(
	const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	rpc_channel_free(f->channel);
	membership_free(f->membership);
	rpc_server_stop(f->server, 0, on_stopped, f);
	UNTIL(f, f->stopped);
	rpc_cq_free(f->cq);
	rpc_identity_free(f->holder);
	rpc_identity_free(f->server_holder);
	loop_turn(f->loop, false);
	loop_free(f->loop);
	EVP_PKEY_free(f->joined_key);
	ca_free(&f->ca);
	nftw(f->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(f->conf.join.token_file);
	free(f->auth_servers[0]);
	free(f);
	return 0;
}

static bool has_error(struct fixture *f, const char *text)
{
	return strstr(membership_last_error(f->membership), text) != NULL;
}

/* ---- tests ---- */

static void a_host_joins_and_a_restart_needs_no_token(void **state)
{
	struct fixture *f = *state;

	begin(f);
	assert_int_equal(f->identities, 0);
	UNTIL(f, f->identities == 1);
	assert_non_null(strstr(f->directory, "/identity/1"));
	assert_string_equal(membership_last_error(f->membership), "");
	membership_free(f->membership);
	unlink(f->conf.join.token_file);
	begin(f);
	assert_int_equal(f->identities, 2);
	assert_int_equal(f->joins, 1);
}

static void a_ca_without_the_pin_gets_no_token(void **state)
{
	struct fixture *f = *state;

	memset(f->pin + strlen("sha256:"), '0', 64);
	begin(f);
	UNTIL(f, has_error(f, "pin"));
	assert_int_equal(f->joins, 0);
}

static void a_server_that_is_no_auth_server_gets_no_token(void **state)
{
	struct fixture *f = *state;

	serve_as(f, "Proxy");
	begin(f);
	UNTIL(f, membership_last_error(f->membership)[0] != '\0');
	assert_int_equal(f->joins, 0);
	assert_int_equal(f->identities, 0);
}

static void a_refused_or_missing_token_is_tried_again(void **state)
{
	struct fixture *f = *state;

	write_token(f, "another-token");
	begin(f);
	UNTIL(f, has_error(f, "no such token"));
	unlink(f->conf.join.token_file);
	UNTIL(f, has_error(f, "No such file"));
	write_token(f, TOKEN);
	UNTIL(f, f->identities == 1);
}

static void a_lost_answer_is_asked_for_with_the_same_key(void **state)
{
	struct fixture *f = *state;
	EVP_PKEY *first;

	f->lose_answers = true;
	begin(f);
	UNTIL(f, f->joins == 1);
	first = f->joined_key;
	f->joined_key = NULL;
	UNTIL(f, has_error(f, "lost on the way"));
	membership_free(f->membership); /* and even after a restart */
	f->lose_answers = false;
	begin(f);
	UNTIL(f, f->identities == 1);
	assert_int_equal(EVP_PKEY_eq(first, f->joined_key), 1);
	EVP_PKEY_free(first);
}

static void another_hosts_certificate_is_not_taken(void **state)
{
	struct fixture *f = *state;

	f->issue_to = OTHER;
	begin(f);
	UNTIL(f, has_error(f, "another host's"));
	assert_int_equal(f->identities, 0);
}

static void a_certificate_is_renewed_at_two_thirds_of_its_life(void **state)
{
	struct fixture *f = *state;

	f->from = -100; /* two thirds are over a second from now */
	f->to = 53;
	begin(f);
	UNTIL(f, f->identities == 1);
	assert_int_equal(f->renewals, 0);
	UNTIL(f, f->identities == 2);
	assert_int_equal(f->renewals, 1);
	assert_int_equal(f->joins, 1);
	assert_non_null(strstr(f->directory, "/identity/2"));
	assert_true(membership_not_after(f->membership) > time(NULL) + 3000);
}

static void an_answer_that_does_not_fit_together_is_not_written(void **state)
{
	struct fixture *f = *state;
	struct ca other = ca_make();
	char *path = xasprintf("%s/identity", f->dir);

	f->host_ca = pki_cert_to_pem(other.cert);
	begin(f);
	UNTIL(f, has_error(f, "could not be put in place"));
	assert_int_equal(f->identities, 0);
	assert_int_equal(access(path, F_OK), -1);
	free(f->host_ca);
	f->host_ca = NULL;
	UNTIL(f, f->identities == 1);
	ca_free(&other);
	free(path);
}

/* What the watch brings: these CAs, of which this one signs. */
static void hear(struct fixture *f, char *host_ca, struct ca *active)
{
	Peerway__Record__ClusterConfig config =
		PEERWAY__RECORD__CLUSTER_CONFIG__INIT;
	char pin[80];

	pki_spki_pin(active->key, pin, sizeof(pin));
	config.host_ca = host_ca;
	config.host_ca_id = pin;
	config.user_ca = host_ca;
	membership_hear(f->membership, &config);
}

static void a_ca_is_replaced(void **state)
{
	struct fixture *f = *state;
	struct ca old = f->ca, new = ca_make();
	char *old_pem = pki_cert_to_pem(old.cert);
	char *new_pem = pki_cert_to_pem(new.cert);
	char *both = xasprintf("%s%s", new_pem, old_pem);

	begin(f);
	UNTIL(f, f->identities == 1);
	hear(f, old_pem, &old);
	UNTIL(f, true);
	/* both are trusted, then the certificate is renewed at once */
	f->ca = new;
	f->host_ca = both;
	hear(f, both, &new);
	UNTIL(f, f->identities == 2);
	assert_int_equal(f->renewals, 0);
	UNTIL(f, f->renewals == 1);
	UNTIL(f, f->identities >= 3);
	/* the old one goes, and its word counts no more */
	f->identities = 0;
	hear(f, new_pem, &new);
	UNTIL(f, f->identities == 1);
	assert_int_equal(f->renewals, 1);
	hear(f, old_pem, &old);
	UNTIL(f, has_error(f, "withdrawn: remove"));
	assert_int_equal(f->identities, 1);
	f->host_ca = NULL;
	free(both);
	free(old_pem);
	free(new_pem);
	ca_free(&old);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_host_joins_and_a_restart_needs_no_token),
		TEST(a_ca_without_the_pin_gets_no_token),
		TEST(a_server_that_is_no_auth_server_gets_no_token),
		TEST(a_refused_or_missing_token_is_tried_again),
		TEST(a_lost_answer_is_asked_for_with_the_same_key),
		TEST(another_hosts_certificate_is_not_taken),
		TEST(an_answer_that_does_not_fit_together_is_not_written),
		TEST(a_ca_is_replaced),
		TEST(a_certificate_is_renewed_at_two_thirds_of_its_life),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
