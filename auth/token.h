/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Join tokens: `<id>.<secret>`, 16 and 64 hexadecimal digits. authd keeps the
 * SHA-256 of the secret and what the token allows, below secret/token/<id>; the
 * token itself is shown once, to who asked for it. A token may be used until it
 * expires or is removed.
 *
 * Pure: no clock, store or log.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/names.h"
#include "shared/identity.h"

#define TOKEN_ID_SIZE 17
#define TOKEN_SIZE 82
#define TOKEN_HASH_SIZE 32
#define TOKEN_KEY_MAX 64

struct token {
	char id[TOKEN_ID_SIZE];
	uint8_t hash[TOKEN_HASH_SIZE];
	enum identity_role role;	    /* Proxy or Node */
	char agent_name[IDENTITY_NAME_MAX]; /* the only one allowed; "": any */
	struct names names; /* the only ones allowed in the certificate */
	int64_t expires;    /* Unix seconds */
};

/* Makes id, secret and hash of token; the text to hand out goes to text. */
void token_make(struct token *token, char text[TOKEN_SIZE]);

/* The id of what somebody presents; false when it is no token at all. */
bool token_parse(const char *text, char id_out[TOKEN_ID_SIZE]);

enum token_verdict {
	TOKEN_GOOD,
	TOKEN_WRONG, /* another secret, or no token */
	/* the secret was right */
	TOKEN_EXPIRED,
	TOKEN_OTHER_ROLE,
	TOKEN_OTHER_NAME,
};
/* agent_name: the one asked for, "" for none. Takes as long for a wrong secret
 * as for the right one. */
enum token_verdict token_verify(const struct token *token, const char *text,
	enum identity_role role, const char *agent_name, int64_t now);
const char *token_verdict_text(enum token_verdict verdict);

void token_key(const char *id, char out[TOKEN_KEY_MAX]);
/* JSON; gives. */
char *token_encode(const struct token *token);
/* 0 or -EBADMSG; out is to be deinitialised after success. */
int token_decode(const uint8_t *text, size_t len, struct token *out);
void token_deinit(struct token *token);

/* "proxy", "node". */
const char *token_role_text(enum identity_role role);
enum identity_role token_role_parse(const char *text);
