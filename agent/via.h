/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A way through an HTTP proxy: CONNECT on a connection to it, until what is
 * sent and received there is the target's.
 */

#include <stdbool.h>
#include <stdint.h>

#include "shared/https_proxy.h"

struct via;
/* addr: the target ("host", "host:port"), whose name the proxy looks up. Copies
 * what it needs. */
struct via *via_new(const struct https_proxy *proxy, const char *addr,
	uint16_t default_port);
void via_free(struct via *via);

/* 0: done. -EAGAIN: wait for fd to be readable, or writable while
 * via_is_sending(). Else -errno, and via_why() says it in one line. Not a byte
 * of the target's is read. */
int via_step(struct via *via, int fd);
bool via_is_sending(const struct via *via);
const char *via_why(const struct via *via);
/* "host:port through HTTP proxy host:port", for messages. */
const char *via_text(const struct via *via);
