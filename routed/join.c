/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joins by token and CA pin: fetches the CA (pin_fetch.c), asks for a
 * certificate over a channel that trusts only that CA and only the role Auth.
 * Used by membership.c. Owns the key until the host has its certificate.
 *
 * What is easily got wrong: an answer that is lost on the way leaves a uuid at
 * authd that only this key may have. So the key is on disk before it is asked
 * for, and is used again after a crash.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "routed/join.h"
#include "routed/pin_fetch.h"
#include "routed/proxy_record.h"
#include "shared/alloc.h"
#include "shared/backoff.h"
#include "shared/log.h"
#include "shared/pki.h"

#define JOIN "/peerway.auth.AuthService/Join"
#define CALL_MS 10000
#define STEP_MS 1000
#define BACKOFF_MAX_MS 60000
#define TOKEN_MAX 4096
#define KEY_MAX 65536

struct join {
	struct loop *loop;
	struct rpc_cq *cq;
	const struct conf *conf;
	const char *proxy_id;
	char *key_path;
	EVP_PKEY *key; /* NULL until it is on disk */
	bool (*on_joined)(void *arg,
		const Peerway__Auth__JoinResponse *response, EVP_PKEY *key);
	void (*on_failed)(void *arg, const char *why);
	void *arg;

	unsigned server;
	struct backoff backoff;
	struct timer *retry;
	struct pin_fetch *fetch;     /* PINNING */
	struct rpc_channel *channel; /* ASKING */
	struct rpc_identity *holder;
};

/* ---- files ---- */

/* At most max bytes, a NUL behind them; gives, NULL and errno. */
static char *read_small(const char *path, size_t max)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text;
	ssize_t len;

	if (fd < 0)
		return NULL;
	text = xcalloc(1, max + 1);
	len = read(fd, text, max);
	close(fd);
	if (len >= 0)
		return text;
	free(text);
	return NULL;
}

static void wipe_free(char *secret)
{
	if (secret)
		wipe(secret, strlen(secret));
	free(secret);
}

static int write_key(const char *path, const char *pem)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	size_t len = strlen(pem);
	bool ok = fd >= 0 && write(fd, pem, len) == (ssize_t)len &&
		  fsync(fd) == 0;

	if (fd >= 0)
		close(fd);
	return ok ? 0 : -1;
}

/* The key of an earlier attempt, or a new one, which is then on disk. */
static int have_key(struct join *join, char **error_out)
{
	char *pem = read_small(join->key_path, KEY_MAX);
	char *ignored = NULL;

	if (join->key) {
		wipe_free(pem);
		return 0;
	}
	if (pem)
		join->key = pki_key_from_pem(pem, strlen(pem), &ignored);
	free(ignored);
	wipe_free(pem);
	if (join->key)
		return 0;
	join->key = pki_key_new();
	pem = join->key ? pki_key_to_pem(join->key) : NULL;
	if (!pem || write_key(join->key_path, pem) < 0) {
		*error_out =
			xasprintf("%s: %s", join->key_path, strerror(errno));
		EVP_PKEY_free(join->key);
		join->key = NULL;
	}
	wipe_free(pem);
	return join->key ? 0 : -1;
}

/* The first word of the file; gives, wipe_free(). */
static char *read_token(const char *path, char **error_out)
{
	char *text = read_small(path, TOKEN_MAX);
	size_t start, len;

	if (!text) {
		*error_out = xasprintf("%s: %s", path, strerror(errno));
		return NULL;
	}
	start = strspn(text, " \t\r\n");
	len = strcspn(text + start, " \t\r\n");
	memmove(text, text + start, len);
	memset(text + len, 0, strlen(text + len));
	if (len > 0)
		return text;
	*error_out = xasprintf("%s: no token in it", path);
	free(text);
	return NULL;
}

/* ---- attempts ---- */

static void end_attempt(struct join *join)
{
	struct rpc_channel *channel = join->channel;

	join->channel = NULL;
	pin_fetch_free(join->fetch);
	join->fetch = NULL;
	rpc_channel_free(channel);
	rpc_identity_free(join->holder);
	join->holder = NULL;
}

static const char *address_of(const struct join *join)
{
	return join->conf
		->auth_servers[join->server % join->conf->auth_servers_count];
}

static void fail(struct join *join, const char *what, const char *why)
{
	char *text =
		xasprintf("%s: %s auth_server=%s", what, why, address_of(join));

	end_attempt(join);
	join->server++;
	timer_set(join->retry, backoff_failed(&join->backoff, arc4random()));
	join->on_failed(join->arg, text);
	free(text);
}

const char *join_response_fault(const Peerway__Auth__JoinResponse *response,
	const char *cluster, const char *proxy_id, EVP_PKEY *key)
{
	STACK_OF(X509) * certs;
	struct host_identity identity;
	const char *fault = NULL;
	char *error = NULL;
	X509 *leaf;

	if (strcmp(response->cluster_name, cluster) != 0)
		return "the auth server is of another cluster";
	certs = pki_certs_from_pem(
		response->cert_chain, strlen(response->cert_chain), &error);
	free(error);
	if (!certs)
		return "the certificate cannot be read";
	leaf = sk_X509_value(certs, 0);
	if (X509_check_private_key(leaf, key) != 1)
		fault = "the certificate is of another key";
	else if (identity_of_host(leaf, cluster, &identity, &fault) == 0 &&
		 (!(identity.roles & IDENTITY_PROXY) ||
			 strcmp(identity.uuid, proxy_id) != 0))
		fault = "the certificate is another host's";
	sk_X509_pop_free(certs, X509_free);
	return fault;
}

static void on_answer(void *arg, int status, const char *message,
	const ProtobufCMessage *base)
{
	const Peerway__Auth__JoinResponse *response = (const void *)base;
	struct join *join = arg;
	const char *fault;
	char *key_path;

	if (!join->channel)
		return; /* ended by us */
	if (status != GRPC_STATUS_OK) {
		fail(join, "join refused", message);
		return;
	}
	fault = join_response_fault(
		response, join->conf->cluster_name, join->proxy_id, join->key);
	if (fault) {
		fail(join, "join answered wrongly", fault);
		return;
	}
	key_path = xstrdup(join->key_path); /* on_joined() frees the join */
	if (join->on_joined(join->arg, response, join->key))
		unlink(key_path);
	else
		fail(join, "join", "the identity could not be put in place");
	free(key_path);
}

static void on_refused(void *arg, const char *why)
{
	/* On a gRPC thread; the call's own error says only "unavailable". */
	log_warn("auth server refused: %s", why);
}

/* An identity that is no more than the CA to trust. */
static struct rpc_identity *holder_of_ca(X509 *ca)
{
	struct tls_identity *identity = xcalloc(1, sizeof(*identity));
	struct rpc_identity *holder;

	identity->refs = 1;
	identity->host_ca_pem = pki_cert_to_pem(ca);
	holder = rpc_identity_new(identity);
	tls_identity_unref(identity);
	return holder;
}

static void send_request(struct join *join, char *token)
{
	Peerway__Auth__JoinRequest request = PEERWAY__AUTH__JOIN_REQUEST__INIT;
	char **names = proxy_record_names(join->conf);
	size_t csr_len = 0;
	uint8_t *csr = pki_csr_make(join->key, &csr_len);

	request.token = token;
	request.role = PEERWAY__AUTH__ROLE__ROLE_PROXY;
	request.host_uuid = (char *)join->proxy_id;
	request.csr = (ProtobufCBinaryData){csr_len, csr};
	request.names = names;
	while (names[request.n_names])
		request.n_names++;
	rpc_unary(join->channel, JOIN, &request.base,
		&peerway__auth__join_response__descriptor, CALL_MS, on_answer,
		join);
	for (size_t i = 0; names[i]; i++)
		free(names[i]);
	free(names);
	free(csr);
}

static void on_pinned(void *arg, X509 *ca, const char *why)
{
	char name[IDENTITY_SERVER_NAME_MAX];
	struct join *join = arg;
	char *error = NULL;
	char *token;

	join->fetch = NULL; /* frees itself now */
	if (!ca) {
		fail(join, "no CA with the pin", why);
		return;
	}
	token = read_token(join->conf->join.token_file, &error);
	if (!token || have_key(join, &error) < 0) {
		wipe_free(token);
		fail(join, "join", error);
		free(error);
		return;
	}
	identity_server_name(join->conf->cluster_name, name);
	join->holder = holder_of_ca(ca);
	join->channel = rpc_channel_new(join->cq, address_of(join), name,
		rpc_channel_creds(join->holder, join->conf->cluster_name,
			IDENTITY_AUTH, NULL, on_refused, NULL));
	send_request(join, token);
	wipe_free(token);
}

static void on_retry(void *arg)
{
	char name[IDENTITY_SERVER_NAME_MAX];
	struct join *join = arg;

	identity_server_name(join->conf->cluster_name, name);
	join->fetch = pin_fetch_start(join->loop, address_of(join),
		join->conf->join.ca_pin, name, on_pinned, join);
}

struct join *join_start(struct loop *loop, struct rpc_cq *cq,
	const struct conf *conf, const char *proxy_id,
	bool (*on_joined)(void *arg,
		const Peerway__Auth__JoinResponse *response, EVP_PKEY *key),
	void (*on_failed)(void *arg, const char *why), void *arg)
{
	struct join *join = xcalloc(1, sizeof(*join));

	join->loop = loop;
	join->cq = cq;
	join->conf = conf;
	join->proxy_id = proxy_id;
	join->key_path = xasprintf("%s/joining.key", conf->data_dir);
	join->on_joined = on_joined;
	join->on_failed = on_failed;
	join->arg = arg;
	join->backoff.step_ms = STEP_MS;
	join->backoff.max_ms = BACKOFF_MAX_MS;
	join->retry = timer_new(loop, on_retry, join);
	timer_set(join->retry, 0);
	return join;
}

void join_free(struct join *join)
{
	if (!join)
		return;
	end_attempt(join);
	timer_free(join->retry);
	EVP_PKEY_free(join->key);
	free(join->key_path);
	loop_free_later(join->loop, free, join);
}
