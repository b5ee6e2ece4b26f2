/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The tunnels of this worker as peerd and routed hear of them: all of them
 * when a link comes up, each change afterwards. A TUNNEL_UP with an id that
 * they know replaces what they had (services changed).
 */

struct ipc_link;
struct registry_entry;
struct worker;

/* To one link, when it has come up. */
void announce_all(struct worker *worker, struct ipc_link *link);
/* To both, when we begin to drain, or serve again. */
void announce_draining(struct worker *worker);
/* To both; a link that is down gets everything when it is back. */
void announce_up(struct worker *worker, const struct registry_entry *entry);
void announce_down(struct worker *worker, const struct registry_entry *entry,
	const char *reason);
