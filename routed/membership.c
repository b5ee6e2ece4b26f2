/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decides where the identity comes from and when it is renewed; join.c does a
 * first join, identity_dir.c the files. Owns the identity in use.
 *
 * What is easily got wrong: authd renews a certificate for the same key only,
 * and gives a uuid it knows to the holder of its key only. So the key of a
 * first join is kept on disk before the question is asked, and a renewal keeps
 * the key.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "auth.pb-c.h"
#include "routed/identity_dir.h"
#include "routed/join.h"
#include "routed/membership.h"
#include "routed/trust.h"
#include "shared/alloc.h"
#include "shared/bundle.h"
#include "shared/log.h"
#include "shared/pki.h"

#define RENEW "/peerway.auth.AuthService/Renew"
#define RENEW_MS 10000
#define RETRY_MS 30000
#define NO_CHANNEL_MS 1000 /* the session is being made anew */
#define SPREAD_MS 1000	   /* at least, when the CA is another */
#define LOOK_MS 3600000	   /* clocks are set, machines sleep */

struct membership {
	struct loop *loop;
	const struct conf *conf;
	const char *proxy_id;
	const struct membership_ops *ops;
	void *arg;
	char *root; /* data_dir/identity */
	char *directory;
	struct tls_identity *identity; /* NULL: not a member */
	struct join *join;	       /* NULL: not joining */
	struct rpc_cq *cq;
	struct timer *renew;
	struct timer *trust; /* to look at what was heard, later */
	struct trust_word word;
	bool unsure; /* the answer to a renewal was lost: ask again */
	char *last_error;
};

static void on_renew_due(void *arg);
static void on_trust_due(void *arg);

struct membership *membership_new(struct loop *loop, struct rpc_cq *cq,
	const struct conf *conf, const char *proxy_id,
	const struct membership_ops *ops, void *arg)
{
	struct membership *membership = xcalloc(1, sizeof(*membership));

	membership->loop = loop;
	membership->cq = cq;
	membership->conf = conf;
	membership->proxy_id = proxy_id;
	membership->ops = ops;
	membership->arg = arg;
	membership->root = xasprintf("%s/identity", conf->data_dir);
	membership->renew = timer_new(loop, on_renew_due, membership);
	membership->trust = timer_new(loop, on_trust_due, membership);
	return membership;
}

void membership_free(struct membership *membership)
{
	if (!membership)
		return;
	join_free(membership->join);
	timer_free(membership->renew);
	timer_free(membership->trust);
	trust_deinit(&membership->word);
	tls_identity_unref(membership->identity);
	free(membership->directory);
	free(membership->root);
	free(membership->last_error);
	free(membership);
}

/* Takes why; NULL: all is well. */
static void set_error(struct membership *membership, char *why)
{
	free(membership->last_error);
	membership->last_error = why;
}

/* ---- an identity in place ---- */

static void schedule_renewal(struct membership *membership)
{
	int64_t not_after = tls_identity_not_after(membership->identity);
	int64_t now = time(NULL);
	struct tm tm;
	int64_t not_before, due_ms;

	if (membership->conf->identity.cert[0])
		return; /* its administrator does that */
	if (membership->unsure ||
		!trust_is_active(&membership->word, membership->identity)) {
		/* not all hosts of the cluster at once */
		timer_set(membership->renew,
			arc4random_uniform(
				SPREAD_MS + membership->word.spread_ms));
		return;
	}
	if (!ASN1_TIME_to_tm(
		    X509_get0_notBefore(membership->identity->leaf), &tm))
		return;
	not_before = timegm(&tm);
	due_ms = (not_before + (not_after - not_before) / 3 * 2 - now) * 1000;
	if (due_ms < 0)
		due_ms = 0;
	timer_set(membership->renew, due_ms < LOOK_MS ? due_ms : LOOK_MS);
}

/* Loads what is in directory (takes it) and tells. */
static int adopt(struct membership *membership, char *directory)
{
	char *error = NULL;
	struct tls_identity *identity = tls_identity_load(directory, &error);

	if (!identity) {
		log_error("identity cannot be used: %s", error);
		set_error(membership, error);
		free(directory);
		return -EINVAL;
	}
	tls_identity_unref(membership->identity);
	membership->identity = identity;
	free(membership->directory);
	membership->directory = directory;
	set_error(membership, NULL);
	schedule_renewal(membership);
	timer_set(membership->trust, 0);
	membership->ops->on_identity(membership->arg, identity, directory);
	return 0;
}

/* Writes what has been found to belong together (takes it) to where every
 * daemon looks for it, and uses it; 0 or -EINVAL, and then the old set is
 * still the current one. */
static int put_in_place(
	struct membership *membership, struct tls_identity *identity)
{
	char *user_ca = pki_certs_to_pem(identity->user_ca);
	struct identity_files files = {.cert = identity->cert_pem,
		.key = identity->key_pem,
		.host_ca = identity->host_ca_pem,
		.user_ca = user_ca[0] ? user_ca : NULL};
	char *error = NULL;
	char *directory = identity_dir_write(membership->root, &files, &error);

	free(user_ca);
	tls_identity_unref(identity);
	if (directory)
		return adopt(membership, directory);
	log_error("identity cannot be written: %s", error);
	set_error(membership, error);
	return -EINVAL;
}

/* Uses what authd has answered, with its key; 0 or -EINVAL. */
static int install(struct membership *membership,
	const Peerway__Auth__JoinResponse *response, EVP_PKEY *key)
{
	char *key_pem = pki_key_to_pem(key);
	char *error = NULL;
	struct tls_identity *identity =
		tls_identity_from_pem(response->cert_chain, key_pem,
			response->host_ca, response->user_ca, &error);

	wipe(key_pem, strlen(key_pem));
	free(key_pem);
	if (identity)
		return put_in_place(membership, identity);
	log_error("the auth server's answer cannot be used: %s", error);
	set_error(membership, error);
	return -EINVAL;
}

/* ---- renewal ---- */

static bool renewal_is_due(const struct membership *membership)
{
	const X509 *leaf = membership->identity->leaf;
	struct tm tm;
	int64_t not_before;
	int64_t not_after = tls_identity_not_after(membership->identity);

	if (membership->unsure ||
		!trust_is_active(&membership->word, membership->identity))
		return true;
	if (!ASN1_TIME_to_tm(X509_get0_notBefore(leaf), &tm))
		return false;
	not_before = timegm(&tm);
	return time(NULL) >= not_before + (not_after - not_before) / 3 * 2;
}

/* Whether authd may have done, and noted, what it could not tell us of. */
static bool is_unsure(int status)
{
	switch (status) {
	case GRPC_STATUS_PERMISSION_DENIED:
	case GRPC_STATUS_UNAUTHENTICATED:
	case GRPC_STATUS_INVALID_ARGUMENT:
	case GRPC_STATUS_FAILED_PRECONDITION:
	case GRPC_STATUS_NOT_FOUND:
		return false;
	default:
		return true;
	}
}

static void on_renewed(void *arg, int status, const char *message,
	const ProtobufCMessage *response)
{
	struct membership *membership = arg;
	const char *why = message;

	if (status == GRPC_STATUS_OK)
		why = join_response_fault((const void *)response,
			membership->conf->cluster_name, membership->proxy_id,
			membership->identity->key);
	if (status == GRPC_STATUS_OK)
		membership->unsure = false;
	if (status == GRPC_STATUS_OK && !why &&
		install(membership, (const void *)response,
			membership->identity->key) == 0) {
		log_info("certificate renewed: directory=%s",
			membership->directory);
		/* rotated on meanwhile, or our watch lags: not at once */
		if (!trust_is_active(&membership->word, membership->identity))
			timer_set(membership->renew, RETRY_MS);
		return;
	}
	log_warn("certificate not renewed: %s status=%d", why ? why : "",
		status);
	set_error(membership, xasprintf("not renewed: %s", why ? why : ""));
	membership->unsure |= is_unsure(status);
	timer_set(membership->renew, RETRY_MS);
}

static void on_renew_due(void *arg)
{
	struct membership *membership = arg;
	struct rpc_channel *channel = membership->ops->channel(membership->arg);
	Peerway__Auth__RenewRequest request =
		PEERWAY__AUTH__RENEW_REQUEST__INIT;
	uint8_t *der = NULL;
	uint8_t *csr;
	size_t csr_len;
	int der_len;

	if (!renewal_is_due(membership)) {
		schedule_renewal(membership);
		return;
	}
	if (!channel) {
		timer_set(membership->renew, NO_CHANNEL_MS);
		return;
	}
	csr = pki_csr_make(membership->identity->key, &csr_len);
	der_len = i2d_X509(membership->identity->leaf, &der);
	if (csr && der_len > 0) {
		request.cert = (ProtobufCBinaryData){(size_t)der_len, der};
		request.csr = (ProtobufCBinaryData){csr_len, csr};
		rpc_unary(channel, RENEW, &request.base,
			&peerway__auth__join_response__descriptor, RENEW_MS,
			on_renewed, membership);
	}
	OPENSSL_free(der);
	free(csr);
}

/* ---- joining ---- */

static void on_join_failed(void *arg, const char *why)
{
	struct membership *membership = arg;

	/* Rarely repeated: the backoff grows to a minute. */
	log_warn("host has not joined: %s token_file=%s", why,
		membership->conf->join.token_file);
	set_error(membership, xasprintf("not joined: %s", why));
}

static bool on_joined(
	void *arg, const Peerway__Auth__JoinResponse *response, EVP_PKEY *key)
{
	struct membership *membership = arg;

	if (install(membership, response, key) < 0)
		return false;
	log_info("host has joined: cluster=%s id=%s directory=%s",
		membership->conf->cluster_name, membership->proxy_id,
		membership->directory);
	join_free(membership->join);
	membership->join = NULL;
	return true;
}

/* ---- own files ---- */

/* Copies the configured files to where every daemon looks for them. */
static int use_own_files(struct membership *membership, char **error_out)
{
	const struct conf_identity *conf = &membership->conf->identity;
	struct tls_identity *identity =
		tls_identity_load_files(conf->cert, conf->key, conf->ca,
			conf->user_ca[0] ? conf->user_ca : NULL, error_out);
	const struct tls_identity *now = membership->identity;

	if (!identity)
		return -EINVAL;
	if (now && !X509_cmp(identity->leaf, now->leaf) &&
		bundle_equal(identity->host_ca, now->host_ca) &&
		bundle_equal(identity->user_ca, now->user_ca)) {
		set_error(membership, NULL);
		tls_identity_unref(identity);
		return 0;
	}
	return put_in_place(membership, identity);
}

/* ---- the CAs of now ---- */

static void on_trust_due(void *arg)
{
	struct membership *membership = arg;
	struct tls_identity *next = NULL;
	enum trust_step step;

	if (!membership->identity || membership->conf->identity.cert[0])
		return; /* trust is then its administrator's, too */
	step = trust_next(&membership->word, membership->identity, &next);
	if (step == TRUST_OTHER) {
		log_info("trusted CAs are others now: host=%d user=%d",
			sk_X509_num(next->host_ca), sk_X509_num(next->user_ca));
		put_in_place(membership, next);
		return;
	}
	if (step != TRUST_SAME) {
		set_error(membership,
			step == TRUST_WITHDRAWN
				? xasprintf("this host's certificate was "
					    "issued by a CA that has been "
					    "withdrawn: remove %s and join "
					    "again with a new token",
					  membership->root)
				: xstrdup("the CAs that authd names cannot be "
					  "used"));
		log_error("trusted CAs stay as they were: %s",
			membership->last_error);
		return;
	}
	schedule_renewal(membership);
}

void membership_hear(struct membership *membership,
	const Peerway__Record__ClusterConfig *config)
{
	/* later: whoever tells us may be at work on the session that another
	 * identity ends */
	if (trust_hear(&membership->word, config))
		timer_set(membership->trust, 0);
}

/* ---- beginning ---- */

int membership_start(struct membership *membership, char **error_out)
{
	const struct conf *conf = membership->conf;
	char *current;

	if (conf->identity.cert[0])
		return use_own_files(membership, error_out);
	current = identity_dir_current(membership->root);
	if (current && adopt(membership, current) == 0)
		return 0;
	if (!conf->join.token_file[0]) {
		*error_out = xstrdup("no identity and no way to one: set join "
				     "or identity in the configuration");
		return -EINVAL;
	}
	membership->join = join_start(membership->loop, membership->cq, conf,
		membership->proxy_id, on_joined, on_join_failed, membership);
	return 0;
}

void membership_reload(struct membership *membership)
{
	char *error = NULL;

	if (!membership->conf->identity.cert[0])
		return;
	if (use_own_files(membership, &error) < 0 && error) {
		log_error("identity is not replaced: %s", error);
		set_error(membership, error);
	}
}

/* ---- what others ask ---- */

const char *membership_directory(const struct membership *membership)
{
	return membership->directory;
}

int64_t membership_not_after(const struct membership *membership)
{
	return membership->identity
		       ? tls_identity_not_after(membership->identity)
		       : 0;
}

const char *membership_last_error(const struct membership *membership)
{
	return membership->last_error ? membership->last_error : "";
}
