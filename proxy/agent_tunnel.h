/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One agent's tunnel, from its TLS handshake to its end:
 *
 *   handshake --host CA, role Node--> GREETING --GET /v1/agent fits the
 *   certificate--> REGISTERED --tunnel ends--> gone
 *
 * While registered it is in the registry, announced to peerd and routed, told
 * of the proxies (at once, when they change, every 2 minutes), and listens to
 * the agent's changes.
 */

#include <stdint.h>

struct agent_tunnel;
struct chan;
struct worker;

/* Takes chan: a finished handshake whose ALPN chose a tunnel. Refuses whom the
 * certificate does not name as an agent. */
void agent_tunnel_start(
	struct worker *worker, struct chan *chan, const char *source);
/* Closes the registered tunnel of that id, if it is still here. */
void agent_tunnel_close(
	struct worker *worker, uint64_t tunnel_id, const char *reason);
/* Tells every registered agent of the proxies as they are now. */
void agent_tunnel_push_all(struct worker *worker);
/* GOAWAY to all, then at most linger_ms for their streams. */
void agent_tunnel_close_all(
	struct worker *worker, uint32_t linger_ms, const char *reason);
