/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Host names to addresses without stopping the loop: getaddrinfo(3) in a thread
 * of its own, so that names mean here what they mean to every other program of
 * the host (nsswitch.conf). The names asked for at the same time share a
 * thread, and at most RESOLVE_THREADS_MAX run.
 *
 * A lookup has no deadline of its own: who waits sets one and cancels. A thread
 * that hangs in the name service is left behind and ends by itself.
 */

#include <stddef.h>

#include "shared/loop.h"
#include "shared/sock.h"

#define RESOLVE_ADDRS_MAX 8
#define RESOLVE_THREADS_MAX 8

struct resolver;
struct resolver *resolver_new(struct loop *loop);
/* Lookups under way are dropped without a call. */
void resolver_free(struct resolver *resolver);

/* What is asked from now on is looked up anew, and does not share what is under
 * way. */
void resolver_forget(struct resolver *resolver);

struct lookup;
/* addrs with the port asked for; none: error says why. In a later turn, last
 * call. */
typedef void lookup_fn(void *arg, const struct sock_addr *addrs, size_t count,
	const char *error);
struct lookup *lookup_start(struct resolver *resolver, const char *host,
	uint16_t port, lookup_fn *fn, void *arg);
void lookup_cancel(struct lookup *lookup);
