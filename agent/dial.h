/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * TCP to one of several addresses, one after another: names are looked up, each
 * address gets its own deadline. Who dials may refuse what it got (a proxy it
 * has already, a service that resets) and go on with the next address.
 *
 *   WAITING --address--> CONNECTING --connected--> told the caller
 *      ^                                               |
 *      +------------------- dial_next() ---------------+
 */

#include "agent/resolve.h"

struct dial;

/* fd: connected (gives), text is its address; call dial_next() or dial_free().
 * Or, when no address is left, -errno, and text says what was wrong with the
 * last one: only dial_free() is left to do. Never from within dial_new(). */
typedef void dial_fn(void *arg, int fd, const char *text);

/* Copies addrs ("host", "host:port"); try_ms bounds each lookup and each
 * connect. first: where among the addresses of one name to begin, any number.
 */
struct dial *dial_new(struct loop *loop, struct resolver *resolver,
	const char *const *addrs, unsigned addr_count, uint16_t default_port,
	uint32_t try_ms, uint32_t first, dial_fn *fn, void *arg);
void dial_next(struct dial *dial);
/* In dial_fn: which of addrs it was, the last one at the end. */
unsigned dial_index(const struct dial *dial);
/* Also inside dial_fn; NULL is fine. */
void dial_free(struct dial *dial);
