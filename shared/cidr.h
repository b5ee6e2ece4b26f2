/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Address ranges as in allow_from: "10.0.0.0/8", "::1", pure. An IPv4 client
 * of an IPv6 socket (::ffff:a.b.c.d) counts as IPv4.
 */

#include <stdbool.h>
#include <stdint.h>

#include "shared/sock.h"

struct cidr {
	uint8_t bytes[16]; /* IPv4 as ::ffff:a.b.c.d */
	unsigned bits;	   /* of 128 */
};

/* 0 or -EINVAL. A text without /bits is one address. */
int cidr_parse(const char *text, struct cidr *out);
bool cidr_contains(const struct cidr *cidr, const struct sock_addr *addr);
