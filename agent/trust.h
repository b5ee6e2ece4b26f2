/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a proxy's word on the cluster's CAs means for the agent's identity: a
 * new CA is trusted when one that is trusted already vouches for it, one that
 * was withdrawn is dropped when the agent has no more use for it. Pure.
 */

#include "shared/discovery.h"
#include "shared/tls.h"

enum trust_step {
	TRUST_SAME,
	TRUST_OTHER,	 /* the same certificate beside other CAs */
	TRUST_WITHDRAWN, /* ours is of a CA that is no longer trusted */
	TRUST_REFUSED,	 /* it cannot be read */
};
/* TRUST_OTHER: *host_ca_out is the PEM of the CAs; gives. */
enum trust_step trust_next(const struct discovery *discovery,
	const struct tls_identity *now, char **host_ca_out);
/* Whether the CA that signs now has signed this, or nothing is known of it. */
bool trust_is_active(const char *pin, const struct tls_identity *identity);
