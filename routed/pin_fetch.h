/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * First contact with a cluster of which only the CA's pin is known: a TLS
 * handshake with the auth server, for the CA in the chain it sends. The chain
 * is verified against the pinned CA, and the name as everywhere; whether it is
 * an auth server (role) is checked by the join itself.
 */

#include <openssl/x509.h>

#include "shared/loop.h"

struct pin_fetch;

/* done(arg, ca, NULL) or done(arg, NULL, why) exactly once within 10 s, never
 * from within this call; ca is borrowed. The fetch is freed after it. Gives. */
struct pin_fetch *pin_fetch_start(struct loop *loop, const char *address,
	const char *pin, const char *server_name,
	void (*done)(void *arg, X509 *ca, const char *why), void *arg);
/* Without done. NULL is fine. */
void pin_fetch_free(struct pin_fetch *fetch);
