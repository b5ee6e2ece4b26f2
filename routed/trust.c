/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CAs that authd names against those this host has, see trust.h. Used by
 * membership.c. Owns nothing.
 *
 * What is easily got wrong: a certificate of a CA that has been withdrawn
 * cannot be used with the CAs of now, and without it this host would have
 * none. So the old set stays and the status says what to do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "routed/trust.h"
#include "shared/alloc.h"
#include "shared/bundle.h"
#include "shared/pki.h"

/* True when *slot was another text. */
static bool take(char **slot, const char *text)
{
	if (*slot && !strcmp(*slot, text))
		return false;
	free(*slot);
	*slot = xstrdup(text);
	return true;
}

bool trust_hear(
	struct trust_word *word, const Peerway__Record__ClusterConfig *config)
{
	bool news = take(&word->host_ca, config->host_ca);

	if (take(&word->user_ca, config->user_ca))
		news = true;
	if (strcmp(word->active, config->host_ca_id))
		news = true;
	snprintf(word->active, sizeof(word->active), "%s", config->host_ca_id);
	word->spread_ms = config->renew_spread_ms;
	return news;
}

void trust_deinit(struct trust_word *word)
{
	free(word->host_ca);
	free(word->user_ca);
	*word = (struct trust_word){0};
}

static bool is_same(const struct tls_identity *now, STACK_OF(X509) * host_ca,
	STACK_OF(X509) * user_ca)
{
	return bundle_equal(now->host_ca, host_ca) &&
	       bundle_equal(now->user_ca, user_ca);
}

static enum trust_step compare(const struct trust_word *word,
	const struct tls_identity *now, STACK_OF(X509) * host_ca,
	STACK_OF(X509) * user_ca, struct tls_identity **next_out)
{
	char *ignored = NULL;

	if (is_same(now, host_ca, user_ca))
		return TRUST_SAME;
	if (!bundle_verifies(now->leaf, host_ca, now->chain, true))
		return TRUST_WITHDRAWN;
	*next_out = tls_identity_from_pem(now->cert_pem, now->key_pem,
		word->host_ca, word->user_ca, &ignored);
	free(ignored);
	return *next_out ? TRUST_OTHER : TRUST_UNREADABLE;
}

enum trust_step trust_next(const struct trust_word *word,
	const struct tls_identity *now, struct tls_identity **next_out)
{
	STACK_OF(X509) * host_ca, *user_ca;
	enum trust_step step = TRUST_UNREADABLE;

	if (!word->host_ca || !word->host_ca[0] || !word->user_ca[0])
		return TRUST_SAME;
	host_ca =
		pki_certs_from_pem(word->host_ca, strlen(word->host_ca), NULL);
	user_ca =
		pki_certs_from_pem(word->user_ca, strlen(word->user_ca), NULL);
	if (host_ca && user_ca)
		step = compare(word, now, host_ca, user_ca, next_out);
	sk_X509_pop_free(host_ca, X509_free);
	sk_X509_pop_free(user_ca, X509_free);
	return step;
}

bool trust_is_active(
	const struct trust_word *word, const struct tls_identity *identity)
{
	X509 *issuer;

	if (!word->active[0])
		return true;
	issuer = bundle_issuer(identity->host_ca, identity->leaf);
	return issuer && pki_pin_matches(issuer, word->active);
}
