/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Whether gRPC still accepts on its port. Its listener gives up for good when
 * accept() once fails for want of descriptors, and says so to nobody; what is
 * seen from outside is that connections pile up in the kernel's queue.
 */

#include <stdbool.h>
#include <stdint.h>

struct listener {
	uint16_t port;
	int fd;		/* gRPC's own, borrowed; -1: not yet found */
	unsigned stuck; /* looks in a row at a queue that is not empty */
};

/* addr "host:port" as it was listened on. */
void listener_init(struct listener *listener, const char *addr);
/* Once a second. True: it has stopped accepting, although there are
 * descriptors again. */
bool listener_is_deaf(struct listener *listener);

/* Whether there are so few descriptors left that fd, just made, had better be
 * closed again: some are kept for gRPC's own connections. */
bool listener_needs_fd(int fd);
