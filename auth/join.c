/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Join: a token and a signing request for a certificate. Asks the store for the
 * token and for what is known of the host, writes the host down, issues.
 *
 *   request --well formed--> token? --good--> host? --new, or same key-->
 *       stored --> answered            any step --wrong--> refused
 *
 * What a newcomer gets wrong: a token lets somebody in, it does not let him be
 * somebody else. A uuid that has a certificate belongs to the key it was made
 * for, and a second join with another key is refused, whatever the token.
 */
#include <grpc/status.h>
#include <stdlib.h>
#include <string.h>

#include "auth.pb-c.h"
#include "auth/authd.h"
#include "auth/issue.h"
#include "auth/join.h"
#include "auth/token.h"
#include "shared/alloc.h"
#include "shared/log.h"
#include "shared/pki.h"

struct join {
	struct authd *auth;
	struct rpc_server_call *call;
	char text[TOKEN_SIZE];
	struct host host; /* as it will be written down */
	struct names wanted;
	EVP_PKEY *key;
	char token_id[TOKEN_ID_SIZE];
};

static void join_free(struct join *join)
{
	wipe(join->text, sizeof(join->text));
	host_deinit(&join->host);
	names_deinit(&join->wanted);
	EVP_PKEY_free(join->key);
	free(join);
}

static void refuse(struct join *join, int status, const char *why)
{
	metric_add(&join->auth->metrics, METRIC_JOINS_REFUSED, 1);
	log_limited(LOG_WARN, "join refused: %s role=%s host=%s name=%s", why,
		host_role_text(join->host.role), join->host.uuid,
		join->host.agent_name);
	rpc_fail(join->call, status, "%s", why);
	join_free(join);
}

bool join_answer(struct authd *auth, struct rpc_server_call *call,
	const struct host *host, EVP_PKEY *key)
{
	Peerway__Auth__JoinResponse response =
		PEERWAY__AUTH__JOIN_RESPONSE__INIT;
	char *error = NULL;
	X509 *cert = NULL;
	char *chain = NULL;

	if (strcmp(host->ca, auth->cas->host.active.pin)) {
		/* rotated while the host was being written down */
		rpc_fail(call, GRPC_STATUS_UNAVAILABLE,
			"the CA has just been replaced; try again");
		return false;
	}
	cert = issue_host(&auth->cas->host.active, auth->conf->cluster_name,
		host, key, authd_time(), &error);
	chain = cert ? issue_chain(cert, &auth->cas->host) : NULL;
	if (chain) {
		response.cert_chain = chain;
		response.host_ca = auth->cas->host.bundle;
		response.user_ca = auth->cas->user.bundle;
		response.cluster_name = auth->conf->cluster_name;
		rpc_reply(call, &response.base);
	} else {
		log_error("certificate not issued: %s host=%s",
			error ? error : "out of memory", host->uuid);
		rpc_fail(call, GRPC_STATUS_INTERNAL,
			"the certificate could not be made");
	}
	free(error);
	X509_free(cert);
	free(chain);
	return cert != NULL;
}

static void on_stored(void *arg, enum backend_status status, uint64_t revision)
{
	struct join *join = arg;

	if (status != BACKEND_OK) {
		refuse(join, authd_status(status), backend_status_text(status));
		return;
	}
	if (join_answer(join->auth, join->call, &join->host, join->key)) {
		metric_add(&join->auth->metrics, METRIC_JOINS, 1);
		log_info("host joined: role=%s host=%s name=%s token=%s",
			host_role_text(join->host.role), join->host.uuid,
			join->host.agent_name, join->token_id);
	}
	join_free(join);
}

void join_store(struct authd *auth, struct host *host, uint64_t mod_revision,
	backend_txn_done *done, void *arg)
{
	char key[HOST_KEY_MAX];
	char *value;
	struct backend_compare unchanged = {
		.kind = mod_revision ? BACKEND_MOD_REVISION : BACKEND_ABSENT,
		.key = key,
		.mod_revision = mod_revision};
	struct backend_op op = {.kind = BACKEND_PUT, .key = key};
	struct backend_txn txn = {&unchanged, 1, &op, 1};

	strcpy(host->ca, auth->cas->host.active.pin);
	host->not_after = authd_time() + ISSUE_HOST_S;
	value = host_encode(host);
	op.value = value;
	op.len = strlen(value);
	host_key(host->role, host->uuid, key);
	backend_txn(auth->backend, &txn, done, arg);
	free(value);
}

static void store(struct join *join, uint64_t mod_revision)
{
	join_store(join->auth, &join->host, mod_revision, on_stored, join);
}

static void on_host(void *arg, const struct backend_range_result *result)
{
	struct join *join = arg;
	struct host known;
	bool same;

	if (result->status != BACKEND_OK) {
		refuse(join, authd_status(result->status),
			backend_status_text(result->status));
		return;
	}
	if (result->count == 0) {
		store(join, 0);
		return;
	}
	if (host_decode(result->kvs[0].value, result->kvs[0].len, &known) < 0) {
		refuse(join, GRPC_STATUS_DATA_LOSS,
			"what is known of the host cannot be read");
		return;
	}
	same = !strcmp(known.pin, join->host.pin);
	host_deinit(&known);
	if (same)
		store(join, result->kvs[0].mod_revision);
	else
		refuse(join, GRPC_STATUS_ALREADY_EXISTS,
			"this host uuid belongs to another key; keep the "
			"host's data_dir or give it a new uuid");
}

/* What the token allows of what the request wants: all of it when nothing in
 * particular is wanted. */
static void grant_names(struct join *join, const struct token *token)
{
	for (unsigned i = 0; i < token->names.count; i++)
		if (join->wanted.count == 0 ||
			names_has(&join->wanted, token->names.items[i]))
			names_add(&join->host.names, token->names.items[i]);
	for (unsigned i = 0; i < join->wanted.count; i++)
		if (!names_has(&token->names, join->wanted.items[i]))
			log_debug("name not allowed by token: host=%s name=%s",
				join->host.uuid, join->wanted.items[i]);
}

/* The name the agent gets; false when there is none. */
static bool settle_name(struct host *host, const struct token *token)
{
	if (host->role != IDENTITY_NODE)
		return true;
	if (token->agent_name[0])
		strcpy(host->agent_name, token->agent_name);
	return host->agent_name[0] != '\0';
}

static void use_token(struct join *join, const struct token *token)
{
	struct backend_range range = {.exact = true, .limit = 1};
	char key[HOST_KEY_MAX];

	if (!settle_name(&join->host, token)) {
		refuse(join, GRPC_STATUS_INVALID_ARGUMENT,
			"the agent's name is missing");
		return;
	}
	if (join->host.role == IDENTITY_PROXY)
		grant_names(join, token);
	host_key(join->host.role, join->host.uuid, key);
	range.prefix = key;
	backend_range(join->auth->backend, &range, on_host, join);
}

static void on_token(void *arg, const struct backend_range_result *result)
{
	struct join *join = arg;
	struct token token;
	enum token_verdict verdict = TOKEN_WRONG;

	if (result->status != BACKEND_OK) {
		refuse(join, authd_status(result->status),
			backend_status_text(result->status));
		return;
	}
	if (result->count == 0 || token_decode(result->kvs[0].value,
					  result->kvs[0].len, &token) < 0) {
		refuse(join, GRPC_STATUS_UNAUTHENTICATED,
			token_verdict_text(verdict));
		return;
	}
	verdict = token_verify(&token, join->text, join->host.role,
		join->host.agent_name, authd_time());
	if (verdict == TOKEN_GOOD)
		use_token(join, &token);
	else
		refuse(join,
			verdict == TOKEN_WRONG ? GRPC_STATUS_UNAUTHENTICATED
					       : GRPC_STATUS_PERMISSION_DENIED,
			token_verdict_text(verdict));
	token_deinit(&token);
}

static enum identity_role role_of(Peerway__Auth__Role role)
{
	return role == PEERWAY__AUTH__ROLE__ROLE_PROXY	? IDENTITY_PROXY
	       : role == PEERWAY__AUTH__ROLE__ROLE_NODE ? IDENTITY_NODE
							: IDENTITY_NONE;
}

/* Takes over what is well formed; NULL, or what is not. */
static const char *read_request(
	struct join *join, const Peerway__Auth__JoinRequest *request)
{
	char *error = NULL;

	join->host.role = role_of(request->role);
	if (!join->host.role)
		return "the role must be proxy or node";
	if (!identity_uuid_is_valid(request->host_uuid))
		return "the host uuid is not valid";
	strcpy(join->host.uuid, request->host_uuid);
	if (join->host.role == IDENTITY_NODE && request->name[0]) {
		if (!identity_name_is_valid(request->name))
			return "the agent's name must be one label of a-z, "
			       "0-9 and hyphens";
		strcpy(join->host.agent_name, request->name);
	}
	for (size_t i = 0; i < request->n_names; i++)
		if (names_add(&join->wanted, request->names[i]) < 0)
			return "a name wanted is neither DNS name nor address, "
			       "or there are too many";
	join->key = pki_csr_key(request->csr.data, request->csr.len, &error);
	if (!join->key) {
		log_debug("signing request refused: %s", error);
		free(error);
		return "the signing request is not valid";
	}
	pki_spki_pin(join->key, join->host.pin, sizeof(join->host.pin));
	return NULL;
}

void join_handle(struct rpc_server_call *call, void *arg,
	const struct host_identity *caller, const ProtobufCMessage *message)
{
	const Peerway__Auth__JoinRequest *request = (const void *)message;
	struct join *join = xcalloc(1, sizeof(*join));
	struct backend_range range = {.exact = true, .limit = 1};
	char key[TOKEN_KEY_MAX];
	const char *wrong;

	join->auth = arg;
	join->call = call;
	wrong = read_request(join, request);
	if (wrong) {
		refuse(join, GRPC_STATUS_INVALID_ARGUMENT, wrong);
		return;
	}
	if (!token_parse(request->token, join->token_id)) {
		refuse(join, GRPC_STATUS_UNAUTHENTICATED,
			token_verdict_text(TOKEN_WRONG));
		return;
	}
	strcpy(join->text, request->token);
	token_key(join->token_id, key);
	range.prefix = key;
	backend_range(join->auth->backend, &range, on_token, join);
}
