/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * An HTTP proxy on the way out of a network, as HTTPS_PROXY and NO_PROXY name
 * it: which addresses go through it, and what it is asked. Pure.
 *
 *   http://[user:password@]host:port
 *
 * No name is looked up here: the proxy is asked for the name, and NO_PROXY is
 * compared with what was written.
 */

#include <stdbool.h>
#include <stdint.h>

/* NULL, or what is wrong with a URL, without a word of it: it may hold a
 * password. */
const char *https_proxy_check(const char *url);

struct https_proxy;
/* url has been checked. no_proxy: names ("example.com", with all below it),
 * addresses, ranges, "*", with commas between them; may be NULL. */
struct https_proxy *https_proxy_new(const char *url, const char *no_proxy);
void https_proxy_free(struct https_proxy *proxy);

/* "host:port", for dialing and for logs. */
const char *https_proxy_addr(const struct https_proxy *proxy);
/* Whether addr ("host", "host:port") is reached through it. */
bool https_proxy_applies(const struct https_proxy *proxy, const char *addr,
	uint16_t default_port);
/* The request that connects to target ("host:port"); give it to wipe(). */
char *https_proxy_request(const struct https_proxy *proxy, const char *target);
