/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What agents are told of the fleet: the body of POST /v1/proxies on a tunnel,
 * and, with the reference's own keys added, the answer to GET /webapi/find.
 * docs/protocol.md has the JSON. Bounds: 1,000 proxies, 8 addresses each. Pure.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISCOVERY_PROXIES_MAX 1000
#define DISCOVERY_ADDRS_MAX 8
#define DISCOVERY_CA_MAX 32768

enum discovery_strategy { DISCOVERY_AGENT_MESH, DISCOVERY_PROXY_PEERING };

struct discovery_proxy {
	char id[37];
	char public_addr[DISCOVERY_ADDRS_MAX][300];
	unsigned public_addr_count;
	char tunnel_addr[DISCOVERY_ADDRS_MAX]
			[300]; /* none: public_addr by ALPN */
	unsigned tunnel_addr_count;
	bool draining;
	enum discovery_strategy strategy; /* the one it runs with */
	uint32_t agent_connection_count;
	char group[64];
	uint64_t generation;
	char region[64];
	char zone[64];
};

struct discovery {
	char cluster_name[256];
	uint32_t keep_alive_interval_ms;
	uint32_t keep_alive_count_max;
	struct discovery_proxy *proxies;
	size_t proxy_count;
	/* PEM of the host CAs and, while there are two, of the certificate by
	 * which the other vouches for the one that signs (shared/bundle.h);
	 * NULL: not said */
	char *host_ca;
	char host_ca_id[80]; /* pin of the one that signs now */
	uint32_t renew_spread_ms;
	/* How new the list is: the store's id and revision; 0: not known. */
	char store_id[64];
	uint64_t revision;
	/* /webapi/find only: the proxy that answers */
	char self_id[37];
};

/* find: the answer to /webapi/find (self_id must be among proxies or empty);
 * else a push. Gives JSON, to free(). */
char *discovery_to_json(const struct discovery *discovery, bool find);
struct discovery *discovery_from_json(
	const char *text, size_t len, char **error_out);
void discovery_free(struct discovery *discovery);
