/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CAs that proxies tell of, see trust.h.
 *
 * What one gets wrong: a proxy is trusted to carry streams, not to say whom to
 * trust. It may pass on what a CA has signed, and may leave out a CA; it cannot
 * bring in one of its own.
 */
#include "agent/trust.h"

#include <string.h>

#include "shared/bundle.h"
#include "shared/pki.h"

static enum trust_step compare(const struct tls_identity *now,
	STACK_OF(X509) * offered, char **host_ca_out)
{
	STACK_OF(X509) *accepted = bundle_accept(now->host_ca, offered);
	enum trust_step step = TRUST_OTHER;

	if (sk_X509_num(accepted) <= 0)
		step = TRUST_WITHDRAWN; /* what we trust is not named */
	else if (bundle_equal(accepted, now->host_ca))
		step = TRUST_SAME;
	else if (!bundle_verifies(now->leaf, accepted, now->chain, true))
		step = TRUST_WITHDRAWN;
	else
		*host_ca_out = pki_certs_to_pem(accepted);
	sk_X509_pop_free(accepted, X509_free);
	return step;
}

enum trust_step trust_next(const struct discovery *discovery,
	const struct tls_identity *now, char **host_ca_out)
{
	STACK_OF(X509) * offered;
	enum trust_step step = TRUST_REFUSED;

	if (!discovery->host_ca)
		return TRUST_SAME;
	offered = pki_certs_from_pem(
		discovery->host_ca, strlen(discovery->host_ca), NULL);
	if (offered)
		step = compare(now, offered, host_ca_out);
	sk_X509_pop_free(offered, X509_free);
	return step;
}

bool trust_is_active(const char *pin, const struct tls_identity *identity)
{
	X509 *issuer;

	if (!pin[0])
		return true;
	issuer = bundle_issuer(identity->host_ca, identity->leaf);
	/* A proxy that names a CA we do not know says nothing. */
	for (int i = 0; i < sk_X509_num(identity->host_ca); i++)
		if (pki_pin_matches(sk_X509_value(identity->host_ca, i), pin))
			return issuer && pki_pin_matches(issuer, pin);
	return true;
}
