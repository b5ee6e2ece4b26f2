/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Join tokens, see token.h. What a newcomer gets wrong: a verdict other than
 * "wrong" tells something about the token, so it is only given to somebody who
 * has shown its secret.
 */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/token.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define ID_BYTES 8
#define SECRET_BYTES 32
#define SECRET_AT (2 * ID_BYTES + 1)

static void to_hex(const uint8_t *bytes, size_t len, char *out)
{
	for (size_t i = 0; i < len; i++)
		snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static bool from_hex(const char *text, uint8_t *out, size_t len)
{
	if (strlen(text) != 2 * len ||
		strspn(text, "0123456789abcdef") != 2 * len)
		return false;
	for (size_t i = 0; i < len; i++) {
		char pair[3] = {text[2 * i], text[2 * i + 1], '\0'};

		out[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return true;
}

void token_make(struct token *token, char text[TOKEN_SIZE])
{
	uint8_t bytes[ID_BYTES + SECRET_BYTES];

	if (RAND_bytes(bytes, sizeof(bytes)) != 1)
		fatal("no random bytes for a token");
	to_hex(bytes, ID_BYTES, token->id);
	memcpy(text, token->id, SECRET_AT - 1);
	text[SECRET_AT - 1] = '.';
	to_hex(bytes + ID_BYTES, SECRET_BYTES, text + SECRET_AT);
	SHA256((const uint8_t *)text + SECRET_AT, 2 * SECRET_BYTES,
		token->hash);
	wipe(bytes, sizeof(bytes));
}

bool token_parse(const char *text, char id_out[TOKEN_ID_SIZE])
{
	if (strlen(text) != TOKEN_SIZE - 1 || text[SECRET_AT - 1] != '.' ||
		strspn(text, "0123456789abcdef") != SECRET_AT - 1 ||
		strspn(text + SECRET_AT, "0123456789abcdef") !=
			2 * SECRET_BYTES)
		return false;
	memcpy(id_out, text, SECRET_AT - 1);
	id_out[SECRET_AT - 1] = '\0';
	return true;
}

enum token_verdict token_verify(const struct token *token, const char *text,
	enum identity_role role, const char *agent_name, int64_t now)
{
	uint8_t hash[TOKEN_HASH_SIZE];
	char id[TOKEN_ID_SIZE];

	if (!token_parse(text, id))
		return TOKEN_WRONG;
	SHA256((const uint8_t *)text + SECRET_AT, 2 * SECRET_BYTES, hash);
	if (CRYPTO_memcmp(hash, token->hash, sizeof(hash)) ||
		CRYPTO_memcmp(id, token->id, sizeof(id)))
		return TOKEN_WRONG;
	if (now >= token->expires)
		return TOKEN_EXPIRED;
	if (role != token->role)
		return TOKEN_OTHER_ROLE;
	if (token->agent_name[0] && agent_name[0] &&
		strcmp(agent_name, token->agent_name))
		return TOKEN_OTHER_NAME;
	return TOKEN_GOOD;
}

const char *token_verdict_text(enum token_verdict verdict)
{
	static const char *const texts[] = {
		[TOKEN_GOOD] = "good",
		[TOKEN_WRONG] = "the token is not known here",
		[TOKEN_EXPIRED] = "the token has expired",
		[TOKEN_OTHER_ROLE] = "the token is for another role",
		[TOKEN_OTHER_NAME] = "the token is for another agent name",
	};

	return texts[verdict];
}

const char *token_role_text(enum identity_role role)
{
	return role == IDENTITY_PROXY  ? "proxy"
	       : role == IDENTITY_NODE ? "node"
				       : "none";
}

enum identity_role token_role_parse(const char *text)
{
	if (!strcmp(text, "proxy"))
		return IDENTITY_PROXY;
	if (!strcmp(text, "node"))
		return IDENTITY_NODE;
	return IDENTITY_NONE;
}

void token_key(const char *id, char out[TOKEN_KEY_MAX])
{
	snprintf(out, TOKEN_KEY_MAX, "secret/token/%s", id);
}

char *token_encode(const struct token *token)
{
	char hash[2 * TOKEN_HASH_SIZE + 1];
	json_t *json;
	char *text;

	to_hex(token->hash, TOKEN_HASH_SIZE, hash);
	json = json_pack("{s:s, s:s, s:s, s:s, s:o, s:I}", "id", token->id,
		"hash", hash, "role", token_role_text(token->role),
		"agent_name", token->agent_name, "names",
		names_to_json(&token->names), "expires",
		(json_int_t)token->expires);
	text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	return text;
}

static int fill(json_t *json, struct token *token)
{
	const char *id, *hash, *role, *agent_name;
	json_t *names;
	json_int_t expires;

	if (json_unpack(json, "{s:s, s:s, s:s, s:s, s:o, s:I}", "id", &id,
		    "hash", &hash, "role", &role, "agent_name", &agent_name,
		    "names", &names, "expires", &expires) < 0)
		return -EBADMSG;
	token->role = token_role_parse(role);
	token->expires = expires;
	if (strlen(id) != TOKEN_ID_SIZE - 1 ||
		!from_hex(hash, token->hash, TOKEN_HASH_SIZE) || !token->role ||
		strlen(agent_name) >= sizeof(token->agent_name) ||
		names_from_json(names, &token->names) < 0)
		return -EBADMSG;
	strcpy(token->id, id);
	strcpy(token->agent_name, agent_name);
	return 0;
}

int token_decode(const uint8_t *text, size_t len, struct token *out)
{
	json_t *json = json_loadb((const char *)text, len, 0, NULL);
	struct token token = {0};
	int ret = json ? fill(json, &token) : -EBADMSG;

	json_decref(json);
	if (ret < 0)
		token_deinit(&token);
	else
		*out = token;
	return ret;
}

void token_deinit(struct token *token)
{
	names_deinit(&token->names);
	wipe(token->hash, sizeof(token->hash));
}
