/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * This host's own record, from its configuration: pure but for the address
 * that stands for "any" (proxy_record_host_addr()).
 */

#include "record.pb-c.h"
#include "shared/conf.h"

/* An address of this host that others may be able to dial: the first that is
 * neither loopback nor link-local, else 127.0.0.1. Numeric. */
void proxy_record_host_addr(char *out, size_t size);

/* strategy: the one that this proxy runs with; borrowed for the call. host_addr
 * stands in for an unspecified host in listen addresses. Gives
 * (peerway__record__proxy_record__free_unpacked). */
Peerway__Record__ProxyRecord *proxy_record_make(const struct conf *conf,
	const char *proxy_id, const char *hostname, const char *host_addr,
	const Peerway__Record__TunnelStrategy *strategy);

/* The names and addresses of the host's certificate that are worth asking for:
 * hosts of its public and listening addresses. Gives a NULL-ended array of
 * texts, and itself. */
char **proxy_record_names(const struct conf *conf);
