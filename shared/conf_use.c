/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of conf_use.h. What a newcomer gets wrong: LIVE is a promise of all
 * daemons in the row. Whoever copies such a value into an object of its own has
 * to set it there too when its main is told of the change, and nobody may keep
 * a pointer to such a text: it is freed.
 */
#include "shared/conf_use.h"

#include <string.h>

#define HOST (CONF_PROXY | CONF_PEERD | CONF_ROUTED)
#define ALL (HOST | CONF_AUTHD | CONF_AGENT)
#define LIVE true
#define RESTART false

/* clang-format off */
const struct conf_use conf_uses[] = {
	{"peerway.cluster_name", ALL, RESTART},
	{"peerway.data_dir", ALL, RESTART},
	{"peerway.run_dir", ALL & ~CONF_AGENT, RESTART},
	{"peerway.host_uuid", ALL, RESTART},
	{"peerway.auth_servers", CONF_ROUTED, RESTART},
	{"peerway.join.token_file", CONF_ROUTED | CONF_AGENT, LIVE},
	{"peerway.join.ca_pin", CONF_ROUTED | CONF_AGENT, LIVE},
	{"peerway.identity.cert", HOST | CONF_AGENT, LIVE},
	{"peerway.identity.key", HOST | CONF_AGENT, LIVE},
	{"peerway.identity.ca", HOST | CONF_AGENT, LIVE},
	{"peerway.identity.user_ca", HOST, LIVE},
	{"peerway.log.level", ALL, LIVE},
	{"peerway.log.format", ALL, LIVE},
	{"peerway.diag.authd", CONF_AUTHD, RESTART},
	{"peerway.diag.proxy", CONF_PROXY, RESTART},
	{"peerway.diag.peerd", CONF_PEERD, RESTART},
	{"peerway.diag.routed", CONF_ROUTED, RESTART},
	{"peerway.diag.agent", CONF_AGENT, RESTART},
	{"auth_service.enabled", CONF_AUTHD, RESTART},
	{"auth_service.listen_addr", CONF_AUTHD, RESTART},
	{"auth_service.public_addr", CONF_AUTHD, LIVE},
	{"auth_service.tunnel_strategy.type", CONF_AUTHD, RESTART},
	{"auth_service.tunnel_strategy.agent_connection_count",
		CONF_AUTHD, RESTART},
	{"auth_service.keep_alive_interval", CONF_AUTHD | CONF_PROXY, LIVE},
	{"auth_service.keep_alive_count_max", CONF_AUTHD | CONF_PROXY, LIVE},
	{"auth_service.lease_ttl", CONF_AUTHD, LIVE},
	{"auth_service.ca_key_file", CONF_AUTHD, RESTART},
	{"auth_service.storage.type", CONF_AUTHD, RESTART},
	{"auth_service.storage.endpoints", CONF_AUTHD, RESTART},
	{"auth_service.storage.prefix", CONF_AUTHD, RESTART},
	{"auth_service.storage.compaction", CONF_AUTHD, RESTART},
	{"auth_service.storage.tls.ca", CONF_AUTHD, RESTART},
	{"auth_service.storage.tls.cert", CONF_AUTHD, RESTART},
	{"auth_service.storage.tls.key", CONF_AUTHD, RESTART},
	{"auth_service.storage.user.name", CONF_AUTHD, RESTART},
	{"auth_service.storage.user.password_file", CONF_AUTHD, RESTART},
	{"proxy_service.enabled", HOST, RESTART},
	{"proxy_service.listen_addr", CONF_PROXY | CONF_ROUTED, RESTART},
	{"proxy_service.tunnel_listen_addr", CONF_PROXY | CONF_ROUTED, RESTART},
	{"proxy_service.peer_listen_addr", CONF_PEERD | CONF_ROUTED, RESTART},
	{"proxy_service.peer_public_addr", CONF_ROUTED, RESTART},
	{"proxy_service.public_addr", CONF_PROXY | CONF_ROUTED, RESTART},
	{"proxy_service.tunnel_public_addr", CONF_PROXY | CONF_ROUTED, RESTART},
	{"proxy_service.workers", CONF_PROXY | CONF_ROUTED, RESTART},
	{"proxy_service.tcp_listeners[].listen", CONF_PROXY, RESTART},
	{"proxy_service.tcp_listeners[].target", CONF_PROXY, RESTART},
	{"proxy_service.tcp_listeners[].allow_from", CONF_PROXY, LIVE},
	{"proxy_service.dial_timeout", CONF_PROXY | CONF_PEERD, LIVE},
	{"proxy_service.handshake_timeout", CONF_PROXY, LIVE},
	{"proxy_service.max_handshakes", CONF_PROXY, LIVE},
	{"proxy_service.max_tunnel_handshakes", CONF_PROXY, LIVE},
	{"proxy_service.max_clients", CONF_PROXY, LIVE},
	{"proxy_service.max_tunnels", CONF_PROXY | CONF_ROUTED, LIVE},
	{"proxy_service.drain_timeout", HOST, LIVE},
	{"proxy_service.rebalance.threshold", CONF_ROUTED, LIVE},
	{"proxy_service.rebalance.rate", CONF_ROUTED, LIVE},
	{"proxy_service.min_tls", CONF_PEERD, RESTART},
	{"proxy_service.stream_buffer_max", CONF_PROXY, LIVE},
	{"proxy_service.buffer_max", CONF_PROXY, LIVE},
	{"proxy_service.peer_memory_max", CONF_PEERD, LIVE},
	{"proxy_service.peer_connections", CONF_PEERD, RESTART},
	{"proxy_service.peer_plain", CONF_PEERD, RESTART},
	{"proxy_service.region", HOST, RESTART},
	{"proxy_service.zone", CONF_PROXY | CONF_ROUTED, RESTART},
	{"proxy_service.group", CONF_PROXY | CONF_ROUTED, RESTART},
	{"proxy_service.generation", CONF_PROXY | CONF_ROUTED, RESTART},
	{"agent_service.enabled", CONF_AGENT, RESTART},
	{"agent_service.name", CONF_AGENT, RESTART},
	{"agent_service.proxy_server", CONF_AGENT, RESTART},
	{"agent_service.labels", CONF_AGENT, LIVE},
	{"agent_service.services[].name", CONF_AGENT, LIVE},
	{"agent_service.services[].type", CONF_AGENT, LIVE},
	{"agent_service.services[].addr", CONF_AGENT, LIVE},
	{"agent_service.max_streams", CONF_AGENT, RESTART},
	{"agent_service.https_proxy", CONF_AGENT, RESTART},
	{"agent_service.reconnect_max_interval", CONF_AGENT, LIVE},
	{"agent_service.region", CONF_AGENT, RESTART},
	{"agent_service.zone", CONF_AGENT, RESTART},
	{"agent_service.surplus_timeout", CONF_AGENT, LIVE},
};
/* clang-format on */
const size_t conf_use_count = sizeof(conf_uses) / sizeof(conf_uses[0]);

const struct conf_use *conf_use_find(const char *path)
{
	for (size_t i = 0; i < conf_use_count; i++)
		if (!strcmp(conf_uses[i].path, path))
			return &conf_uses[i];
	return NULL;
}
