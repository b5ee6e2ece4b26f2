/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One agent's tunnel, from its TLS handshake to its end:
 *
 *   handshake --host CA, role Node--> GREETING --GET /v1/agent fits the
 *   certificate--> REGISTERED --tunnel ends--> gone
 *
 * While registered it is in the registry, announced to peerd and routed, told
 * of the proxies (at once, when they change, every 2 minutes), told when its
 * route is known to all, and listens to the agent's changes.
 */

#include <stdbool.h>
#include <stdint.h>

struct agent_tunnel;
struct chan;
struct worker;

/* Takes chan: a finished handshake whose ALPN chose a tunnel. Refuses whom the
 * certificate does not name as an agent. */
void agent_tunnel_start(
	struct worker *worker, struct chan *chan, const char *source);
/* The cache has changed: tells agents whose route is in there that it is, so
 * that they may give up others. */
void agent_tunnel_tell_published(struct worker *worker);
/* Whether every agent with a tunnel here has one at another host that serves,
 * as the cache has it. */
bool agent_tunnel_all_elsewhere(struct worker *worker);
/* Closes the registered tunnel of that id, if it is still here. */
void agent_tunnel_close(
	struct worker *worker, uint64_t tunnel_id, const char *reason);
/* Asks the agent of that tunnel to have it at the proxy to instead. */
void agent_tunnel_move(
	struct worker *worker, uint64_t tunnel_id, const char *to);
/* Tells every registered agent of the proxies, a few in each turn of the loop,
 * each as they are by then. */
void agent_tunnel_push_all(struct worker *worker);
/* GOAWAY to all, then at most linger_ms for their streams. */
void agent_tunnel_close_all(
	struct worker *worker, uint32_t linger_ms, const char *reason);
