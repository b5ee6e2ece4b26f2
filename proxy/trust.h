/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Who is asked for which certificate. The ClientHello's ALPN names decide, once
 * and before any certificate is looked at:
 *
 *   peerway-tunnel   host CA, required     an agent's tunnel
 *   peerway-agent    host CA, optional     an agent that joins or renews
 *   anything else    user CA, optional     a client (3080 only)
 *
 * So a host certificate is never held against the user CA, nor the reverse.
 */

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "shared/tls.h"

enum trust_kind { TRUST_USER, TRUST_AGENT, TRUST_TUNNEL, TRUST_KINDS };

/* What a ClientHello asks for. An agent's handshake waits (chan_handshake():
 * -EINPROGRESS) until admitted is set: nothing was sent yet, and a plain answer
 * is still possible. */
struct trust_hello {
	bool seen;
	enum trust_kind asked;
	bool admitted;
};

struct trust;

struct trust *trust_new(void);
void trust_free(struct trust *trust);

/* New connections use identity from here on; old ones live on with what they
 * have. 0, or -EINVAL and *error_out (gives): then nothing has changed. */
int trust_use(
	struct trust *trust, struct tls_identity *identity, char **error_out);
/* Unix seconds; 0: no identity yet. */
int64_t trust_not_after(const struct trust *trust);

/* A connection that waits for its ClientHello: on 3080 of any kind, on 3024
 * (tunnels_only) of one. Gives, or NULL: no identity yet. Borrows hello until
 * the handshake has ended. */
SSL *trust_accept(
	struct trust *trust, bool tunnels_only, struct trust_hello *hello);
/* What it became; valid after the handshake. */
enum trust_kind trust_kind_of(const SSL *ssl);
/* The leaf, if one was sent and verified; borrowed. */
X509 *trust_leaf(SSL *ssl);
