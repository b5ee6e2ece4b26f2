/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The proxy record from the configuration. Used by publisher.c for what is
 * published and by membership.c for the names in a certificate.
 *
 * What is easily got wrong: peer_addr is published only in proxy_peering; in
 * agent_mesh peerd does not listen on it, and peers would dial in vain.
 */

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "routed/proxy_record.h"
#include "shared/alloc.h"
#include "shared/sock.h"

static int address_rank(const struct ifaddrs *entry)
{
	const struct sockaddr_in6 *six = (const void *)entry->ifa_addr;

	if (!entry->ifa_addr || !(entry->ifa_flags & IFF_UP) ||
		(entry->ifa_flags & IFF_LOOPBACK))
		return 0;
	if (entry->ifa_addr->sa_family == AF_INET)
		return 2;
	if (entry->ifa_addr->sa_family == AF_INET6 &&
		!IN6_IS_ADDR_LINKLOCAL(&six->sin6_addr))
		return 1;
	return 0;
}

void proxy_record_host_addr(char *out, size_t size)
{
	struct ifaddrs *all = NULL;
	int best = 0;

	snprintf(out, size, "127.0.0.1");
	if (getifaddrs(&all) < 0)
		return;
	for (struct ifaddrs *entry = all; entry; entry = entry->ifa_next) {
		int rank = address_rank(entry);
		socklen_t len = rank == 2 ? sizeof(struct sockaddr_in)
					  : sizeof(struct sockaddr_in6);

		if (rank > best &&
			getnameinfo(entry->ifa_addr, len, out, (socklen_t)size,
				NULL, 0, NI_NUMERICHOST) == 0)
			best = rank;
	}
	freeifaddrs(all);
}

static bool is_any(const char *host)
{
	return host[0] == '\0' || strcmp(host, "*") == 0 ||
	       strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

/* listen as others would dial it; gives, empty when it is not an address. */
static char *dialable(const char *listen, const char *host_addr)
{
	char host[SOCK_ADDR_MAX];
	uint16_t port;

	if (sock_split(listen, 0, host, sizeof(host), &port) < 0)
		return xstrdup("");
	if (is_any(host))
		snprintf(host, sizeof(host), "%s", host_addr);
	if (strchr(host, ':'))
		return xasprintf("[%s]:%u", host, port);
	return xasprintf("%s:%u", host, port);
}

static char **copy_list(char *const *from, unsigned count)
{
	char **list = xcalloc(count, sizeof(*list));

	for (unsigned i = 0; i < count; i++)
		list[i] = xstrdup(from[i]);
	return list;
}

static void fill_addresses(const struct conf_proxy *conf, const char *host_addr,
	bool peering, Peerway__Record__ProxyRecord *record)
{
	if (!peering)
		record->peer_addr = xstrdup("");
	else if (conf->peer_public_addr[0])
		record->peer_addr = xstrdup(conf->peer_public_addr);
	else
		record->peer_addr = dialable(conf->peer_listen_addr, host_addr);
	if (conf->public_addr_count > 0) {
		record->n_public_addr = conf->public_addr_count;
		record->public_addr =
			copy_list(conf->public_addr, conf->public_addr_count);
	} else {
		record->n_public_addr = 1;
		record->public_addr = xcalloc(1, sizeof(char *));
		record->public_addr[0] = dialable(conf->listen_addr, host_addr);
	}
	record->n_tunnel_addr = conf->tunnel_public_addr_count;
	if (record->n_tunnel_addr > 0)
		record->tunnel_addr = copy_list(conf->tunnel_public_addr,
			conf->tunnel_public_addr_count);
}

Peerway__Record__ProxyRecord *proxy_record_make(const struct conf *conf,
	const char *proxy_id, const char *hostname, const char *host_addr,
	const Peerway__Record__TunnelStrategy *strategy)
{
	Peerway__Record__ProxyRecord *record = xcalloc(1, sizeof(*record));
	const struct conf_proxy *proxy = &conf->proxy;

	peerway__record__proxy_record__init(record);
	record->id = xstrdup(proxy_id);
	record->hostname = xstrdup(hostname);
	fill_addresses(proxy, host_addr,
		strategy->type == PEERWAY__RECORD__STRATEGY_TYPE__PROXY_PEERING,
		record);
	record->version = xstrdup(PEERWAY_VERSION);
	record->state = PEERWAY__RECORD__PROXY_STATE__SERVING;
	record->strategy = xcalloc(1, sizeof(*record->strategy));
	*record->strategy = *strategy;
	record->group = xstrdup(proxy->group);
	record->generation = proxy->generation;
	record->region = xstrdup(proxy->region);
	record->zone = xstrdup(proxy->zone);
	record->workers = proxy->workers;
	return record;
}

/* ---- names ---- */

static void add_host(char **names, size_t max, const char *address)
{
	char host[SOCK_ADDR_MAX];
	size_t at = 0;
	uint16_t port;

	if (sock_split(address, 443, host, sizeof(host), &port) < 0 ||
		is_any(host))
		return;
	while (names[at] && strcmp(names[at], host) != 0)
		at++;
	if (!names[at] && at < max)
		names[at] = xstrdup(host);
}

char **proxy_record_names(const struct conf *conf)
{
	const struct conf_proxy *proxy = &conf->proxy;
	size_t max =
		proxy->public_addr_count + proxy->tunnel_public_addr_count + 4;
	char **names = xcalloc(max + 1, sizeof(*names));

	for (unsigned i = 0; i < proxy->public_addr_count; i++)
		add_host(names, max, proxy->public_addr[i]);
	for (unsigned i = 0; i < proxy->tunnel_public_addr_count; i++)
		add_host(names, max, proxy->tunnel_public_addr[i]);
	add_host(names, max, proxy->peer_public_addr);
	add_host(names, max, proxy->listen_addr);
	add_host(names, max, proxy->tunnel_listen_addr);
	add_host(names, max, proxy->peer_listen_addr);
	return names;
}
