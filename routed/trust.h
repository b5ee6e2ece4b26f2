/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What authd's word on its CAs (in the cluster's config) means for the identity
 * this host has. Pure.
 */

#include "record.pb-c.h"
#include "shared/tls.h"

/* As the config has it; empty: authd says nothing. */
struct trust_word {
	char *host_ca; /* PEM */
	char *user_ca;
	char active[80]; /* pin of the CA that signs hosts now */
	uint32_t spread_ms;
};
/* Takes over what config says; true when that is anything new. */
bool trust_hear(
	struct trust_word *word, const Peerway__Record__ClusterConfig *config);
void trust_deinit(struct trust_word *word);

enum trust_step {
	TRUST_SAME,
	TRUST_OTHER,	 /* the same certificate beside other CAs */
	TRUST_WITHDRAWN, /* the certificate is of none of the CAs */
	TRUST_UNREADABLE,
};
/* TRUST_OTHER: *next_out is what takes now's place; gives. */
enum trust_step trust_next(const struct trust_word *word,
	const struct tls_identity *now, struct tls_identity **next_out);
/* Whether the CA that signs now is the one that signed this, or nothing is
 * known of it. */
bool trust_is_active(
	const struct trust_word *word, const struct tls_identity *identity);
