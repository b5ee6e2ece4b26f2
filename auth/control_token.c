/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making, listing and removing join tokens. Expired ones are removed when the
 * list is read or grows. What a newcomer gets wrong: the token's text exists in
 * this process only until the answer is written; the store has its hash, the
 * log its id.
 */
#include <stdlib.h>
#include <string.h>

#include "auth/control.h"
#include "auth/control_token.h"
#include "auth/token.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define TTL_DEFAULT_S 3600
#define TTL_MAX_S (365 * 86400)
#define PREFIX "secret/token/"

/* A question that is with the store. */
struct request {
	struct authd *auth;
	struct ctl_call *call;
	struct token token;
	char text[TOKEN_SIZE];
	json_t *list; /* token.ls, while it is read */
	char after[TOKEN_KEY_MAX];
};

static struct request *request_new(struct authd *auth, struct ctl_call *call)
{
	struct request *request = xcalloc(1, sizeof(*request));

	request->auth = auth;
	request->call = call;
	return request;
}

static void request_free(struct request *request)
{
	wipe(request->text, sizeof(request->text));
	token_deinit(&request->token);
	json_decref(request->list);
	free(request);
}

/* ---- list ---- */

static json_t *describe(const struct token *token)
{
	char expires[CONTROL_TIME_SIZE];

	control_time(token->expires, expires);
	return json_pack("{s:s, s:s, s:s, s:o, s:s}", "id", token->id, "role",
		token_role_text(token->role), "agent_name", token->agent_name,
		"names", names_to_json(&token->names), "expires", expires);
}

static void list_part(struct request *request);

static void purge(struct authd *auth, const struct backend_kv *kv)
{
	/* unless it has been written anew under the same id */
	struct backend_compare same = {.kind = BACKEND_MOD_REVISION,
		.key = kv->key,
		.mod_revision = kv->mod_revision};
	struct backend_op op = {.kind = BACKEND_DELETE, .key = kv->key};
	struct backend_txn txn = {&same, 1, &op, 1};

	backend_txn(auth->backend, &txn, NULL, NULL);
}

static void list_one(struct request *request, const struct backend_kv *kv)
{
	struct token token;

	if (token_decode(kv->value, kv->len, &token) < 0) {
		log_warn("token cannot be read: key=%s", kv->key);
		return;
	}
	if (token.expires <= authd_time())
		purge(request->auth, kv);
	else
		json_array_append_new(request->list, describe(&token));
	token_deinit(&token);
}

static void on_list(void *arg, const struct backend_range_result *result)
{
	struct request *request = arg;

	if (result->status != BACKEND_OK) {
		ctl_fail(request->call, "%s",
			backend_status_text(result->status));
		request_free(request);
		return;
	}
	for (size_t i = 0; i < result->count; i++)
		list_one(request, &result->kvs[i]);
	if (result->more) {
		snprintf(request->after, sizeof(request->after), "%s",
			result->kvs[result->count - 1].key);
		list_part(request);
		return;
	}
	ctl_reply(request->call, json_pack("{s:O}", "tokens", request->list));
	request_free(request);
}

static void list_part(struct request *request)
{
	struct backend_range range = {.prefix = PREFIX,
		.after = request->after[0] ? request->after : NULL,
		.limit = 500};

	backend_range(request->auth->backend, &range, on_list, request);
}

void control_token_list(struct ctl_call *call, void *arg, json_t *args)
{
	struct request *request = request_new(arg, call);

	request->list = json_array();
	list_part(request);
}

/* ---- add ---- */

static void on_added(void *arg, enum backend_status status, uint64_t revision)
{
	struct request *request = arg;
	char expires[CONTROL_TIME_SIZE];

	if (status != BACKEND_OK) {
		ctl_fail(request->call, "%s", backend_status_text(status));
	} else {
		control_time(request->token.expires, expires);
		log_info("token added: id=%s role=%s agent_name=%s expires=%s",
			request->token.id, token_role_text(request->token.role),
			request->token.agent_name, expires);
		ctl_reply(request->call,
			json_pack("{s:s, s:s, s:s}", "token", request->text,
				"id", request->token.id, "expires", expires));
	}
	request_free(request);
}

/* NULL, or what is wrong with the arguments. */
static const char *read_add(struct token *token, json_t *args)
{
	const char *role = "";
	const char *agent_name = "";
	json_t *names = NULL;
	json_int_t ttl = TTL_DEFAULT_S;

	if (json_unpack(args, "{s:s, s?o, s?I, s?s}", "role", &role, "names",
		    &names, "ttl_s", &ttl, "agent_name", &agent_name) < 0)
		return "role is missing, or an argument has the wrong type";
	token->role = token_role_parse(role);
	if (!token->role)
		return "role must be proxy or node";
	if (ttl == 0)
		ttl = TTL_DEFAULT_S;
	if (ttl < 1 || ttl > TTL_MAX_S)
		return "ttl must be between 1 s and 365 days";
	token->expires = authd_time() + ttl;
	if (names_from_json(names, &token->names) < 0)
		return "names must be DNS names or addresses, at most 32, "
		       "and not below teleport.cluster.local";
	if (token->role == IDENTITY_NODE && token->names.count)
		return "an agent's certificate has no names; use agent_name";
	if (agent_name[0] && token->role != IDENTITY_NODE)
		return "agent_name is for role node";
	if (agent_name[0] && !identity_name_is_valid(agent_name))
		return "agent_name must be one label of a-z, 0-9 and hyphens";
	strcpy(token->agent_name, agent_name);
	return NULL;
}

void control_token_add(struct ctl_call *call, void *arg, json_t *args)
{
	struct request *request = request_new(arg, call);
	char key[TOKEN_KEY_MAX];
	struct backend_compare absent = {.kind = BACKEND_ABSENT, .key = key};
	struct backend_op op = {.kind = BACKEND_PUT, .key = key};
	struct backend_txn txn = {&absent, 1, &op, 1};
	const char *wrong = read_add(&request->token, args);
	char *value;

	if (wrong) {
		ctl_fail(call, "%s", wrong);
		request_free(request);
		return;
	}
	token_make(&request->token, request->text);
	token_key(request->token.id, key);
	value = token_encode(&request->token);
	op.value = value;
	op.len = strlen(value);
	backend_txn(request->auth->backend, &txn, on_added, request);
	free(value);
}

/* ---- remove ---- */

static void on_removed(void *arg, enum backend_status status, uint64_t revision)
{
	struct request *request = arg;

	if (status == BACKEND_COMPARE_FAILED) {
		ctl_fail(request->call, "changed meanwhile; try again");
	} else if (status != BACKEND_OK) {
		ctl_fail(request->call, "%s", backend_status_text(status));
	} else {
		log_info("token removed: id=%s", request->token.id);
		ctl_reply(request->call,
			json_pack("{s:s}", "id", request->token.id));
	}
	request_free(request);
}

static void on_found(void *arg, const struct backend_range_result *result)
{
	struct request *request = arg;
	char key[TOKEN_KEY_MAX];
	struct backend_compare same = {
		.kind = BACKEND_MOD_REVISION, .key = key};
	struct backend_op op = {.kind = BACKEND_DELETE, .key = key};
	struct backend_txn txn = {&same, 1, &op, 1};

	if (result->status != BACKEND_OK || result->count == 0) {
		ctl_fail(request->call, "%s",
			result->status == BACKEND_OK
				? "no such token"
				: backend_status_text(result->status));
		request_free(request);
		return;
	}
	token_key(request->token.id, key);
	same.mod_revision = result->kvs[0].mod_revision;
	backend_txn(request->auth->backend, &txn, on_removed, request);
}

void control_token_remove(struct ctl_call *call, void *arg, json_t *args)
{
	struct request *request;
	struct backend_range range = {.exact = true, .limit = 1};
	char key[TOKEN_KEY_MAX];
	const char *id = "";

	if (json_unpack(args, "{s:s}", "id", &id) < 0 ||
		strlen(id) != TOKEN_ID_SIZE - 1 ||
		strspn(id, "0123456789abcdef") != strlen(id)) {
		ctl_fail(call, "id must be a token's id of 16 hexadecimal "
			       "digits, as token ls shows it");
		return;
	}
	request = request_new(arg, call);
	strcpy(request->token.id, id);
	token_key(id, key);
	range.prefix = key;
	backend_range(request->auth->backend, &range, on_found, request);
}
