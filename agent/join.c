/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining and renewing. Talks to https.h; owns the key while it asks.
 *
 * What one gets wrong: the token is a secret. It is read when it is needed,
 * wiped when it was sent, and never part of a message.
 */
#include "agent/join.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/issued.h"
#include "agent/keystore.h"
#include "shared/alloc.h"
#include "shared/pki.h"
#include "shared/tls.h"

#define TOKEN_MAX 1024

struct join {
	struct loop *loop;
	struct https *https; /* NULL: not pending */
	struct loop_task fail;
	char *directory;
	char *host_uuid;
	char *cluster;
	char *token_file; /* NULL: a renewal */
	char *ca_pin;
	EVP_PKEY *key;
	struct tls_identity *old; /* a renewal: whom we trust */
	char *error;		  /* what on_fail() tells */
	join_fn *fn;
	void *arg;
};

void join_free(struct join *join)
{
	if (!join)
		return;
	loop_cancel(join->loop, &join->fail);
	https_free(join->https);
	EVP_PKEY_free(join->key);
	tls_identity_unref(join->old);
	free(join->directory);
	free(join->host_uuid);
	free(join->cluster);
	free(join->token_file);
	free(join->ca_pin);
	free(join->error);
	loop_free_later(join->loop, free, join);
}

/* The last call. Takes why. */
static void finish(struct join *join, enum join_outcome outcome, char *why)
{
	join_free(join);
	join->fn(join->arg, outcome, why);
	free(why);
}

static void on_fail(struct loop_task *task)
{
	struct join *join =
		(struct join *)((char *)task - offsetof(struct join, fail));
	char *why = join->error;

	join->error = NULL;
	finish(join, JOIN_REFUSED, why);
}

/* What the peer answered, on one line and not too long. */
static char *answer_text(const struct https_result *result)
{
	size_t len = result->len < 300 ? result->len : 300;
	char *text = xstrndup(result->body, len);

	text[strcspn(text, "\r\n")] = '\0';
	return text;
}

static void take_certificate(
	struct join *join, const struct https_result *result)
{
	const struct issued_expect expect = {join->key, join->cluster,
		join->host_uuid, join->old ? join->old->host_ca : NULL,
		join->ca_pin};
	char *error = NULL;
	struct issued *issued =
		issued_from_json(result->body, result->len, &expect, &error);

	if (issued)
		keystore_save(join->directory, issued->cert_chain,
			issued->host_ca, issued->user_ca, &error);
	issued_free(issued);
	finish(join, error ? JOIN_FAILED : JOIN_DONE, error);
}

/* What the operator can do about a refusal; gives. */
static char *advice(const struct join *join, int status)
{
	if (status == 409)
		return xasprintf("another host has this name or uuid: set "
				 "another agent_service.name, or, if this "
				 "host was copied, remove %s and the "
				 "host_uuid beside it",
			join->directory);
	if (join->token_file)
		return xasprintf("make a new token with `peerctl token add "
				 "--role node` and put it into %s",
			join->token_file);
	return xasprintf(
		"remove %s and join with a new token", join->directory);
}

static void take_refusal(struct join *join, const struct https_result *result)
{
	char *text = answer_text(result);
	char *help = NULL, *why;

	if (result->status >= 500) {
		why = xasprintf(
			"the proxy answered %d: %s", result->status, text);
	} else {
		help = advice(join, result->status);
		why = xasprintf("refused: %s (status %d): %s", text,
			result->status, help);
	}
	free(help);
	free(text);
	finish(join, result->status >= 500 ? JOIN_FAILED : JOIN_REFUSED, why);
}

static void on_answer(void *arg, const struct https_result *result)
{
	struct join *join = arg;

	join->https = NULL;
	if (result->status == 200)
		take_certificate(join, result);
	else if (result->status)
		take_refusal(join, result);
	else if (!result->connected && join->token_file &&
		 (result->failure == CONNECT_STRANGER ||
			 result->failure == CONNECT_TLS))
		finish(join, JOIN_REFUSED,
			xasprintf("%s: is this a proxy of the cluster? compare "
				  "join.ca_pin with what `peerctl token add` "
				  "shows, and cluster_name",
				result->why));
	else
		finish(join, result->connected ? JOIN_FAILED : JOIN_UNREACHED,
			xstrdup(result->why));
}

/* Gives the token (to wipe()), or NULL with errno. */
static char *read_token(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *token;
	ssize_t n;

	if (fd < 0)
		return NULL;
	token = xcalloc(1, TOKEN_MAX + 1);
	n = read(fd, token, TOKEN_MAX);
	close(fd);
	token[n > 0 ? strcspn(token, " \t\r\n") : 0] = '\0';
	if (n > 0 && token[0])
		return token;
	if (n >= 0)
		errno = ENODATA;
	free(token);
	return NULL;
}

static char *base64(const uint8_t *data, size_t len)
{
	char *text = xcalloc(1, 4 * ((len + 2) / 3) + 1);

	EVP_EncodeBlock((unsigned char *)text, data, len);
	return text;
}

/* The signing request, in base64; gives. */
static char *make_csr(EVP_PKEY *key)
{
	size_t len;
	uint8_t *der = pki_csr_make(key, &len);
	char *text = der ? base64(der, len) : xstrdup("");

	free(der);
	return text;
}

/* Gives the body of the question, or NULL and join->error. */
static char *join_body(struct join *join, const char *name)
{
	char *token = read_token(join->token_file);
	char *csr, *body;
	json_t *document;

	if (!token) {
		join->error = xasprintf("cannot read the token file %s: %s",
			join->token_file,
			errno == ENODATA ? "it is empty" : strerror(errno));
		return NULL;
	}
	csr = make_csr(join->key);
	document = json_pack("{s:s, s:s, s:s, s:s}", "token", token,
		"host_uuid", join->host_uuid, "name", name, "csr", csr);
	body = document ? json_dumps(document, JSON_COMPACT) : NULL;
	if (!body)
		join->error = xasprintf(
			"the token in %s is not text", join->token_file);
	/* jansson keeps a copy of its own */
	wipe((char *)json_string_value(json_object_get(document, "token")),
		document ? strlen(token) : 0);
	json_decref(document);
	wipe(token, TOKEN_MAX);
	free(token);
	free(csr);
	return body;
}

static char *renew_body(struct join *join, const struct tls_identity *old)
{
	char *csr = make_csr(join->key);
	unsigned char *der = NULL;
	int len = i2d_X509(old->leaf, &der);
	char *cert = base64(der, len > 0 ? len : 0);
	json_t *document = json_pack("{s:s, s:s}", "cert", cert, "csr", csr);
	char *body = json_dumps(document, JSON_COMPACT);

	json_decref(document);
	OPENSSL_free(der);
	free(cert);
	free(csr);
	return body;
}

static void start(struct join *join, struct resolver *resolver,
	const struct join_request *request)
{
	struct https_request https = {
		.to = request->to,
		.method = "POST",
		.path = request->old ? "/v1/agent/renew" : "/v1/agent/join",
		.content_type = "application/json",
		.secret = true,
	};
	char *body;

	if (request->old) {
		EVP_PKEY_up_ref(request->old->key);
		join->key = request->old->key;
		body = renew_body(join, request->old);
	} else {
		join->key = keystore_key(join->directory, &join->error);
		body = join->key ? join_body(join, request->name) : NULL;
	}
	if (!body) {
		loop_defer(join->loop, &join->fail);
		return;
	}
	https.body = body;
	join->https = https_new(join->loop, resolver, &https, on_answer, join);
	wipe(body, strlen(body));
	free(body);
}

struct join *join_new(struct loop *loop, struct resolver *resolver,
	const struct join_request *request, join_fn *fn, void *arg)
{
	struct join *join = xcalloc(1, sizeof(*join));

	join->loop = loop;
	join->fail.run = on_fail;
	join->directory = xstrdup(request->directory);
	join->host_uuid = xstrdup(request->host_uuid);
	join->cluster = xstrdup(request->to.cluster);
	if (request->old) {
		join->old = tls_identity_ref(request->old);
	} else {
		join->token_file = xstrdup(request->token_file);
		join->ca_pin = xstrdup(request->ca_pin);
	}
	join->fn = fn;
	join->arg = arg;
	start(join, resolver, request);
	return join;
}
