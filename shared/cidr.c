/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether an address is in a range. Pure. What a newcomer gets wrong: both
 * families are compared in one space of 128 bits, so an IPv4 range begins 96
 * bits in, and "::/0" holds IPv4 too.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "shared/cidr.h"

#define V4_BITS 96

static const uint8_t v4_prefix[12] = {[10] = 0xff, [11] = 0xff};

static void map_v4(const struct in_addr *v4, uint8_t bytes[16])
{
	memcpy(bytes, v4_prefix, sizeof(v4_prefix));
	memcpy(bytes + sizeof(v4_prefix), v4, 4);
}

/* At most three digits, without a leading zero. */
static int parse_bits(const char *text, unsigned max, unsigned *out)
{
	size_t len = strspn(text, "0123456789");
	unsigned bits = 0;

	if (len < 1 || len > 3 || text[len] || (len > 1 && text[0] == '0'))
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		bits = bits * 10 + (unsigned)(text[i] - '0');
	if (bits > max)
		return -EINVAL;
	*out = bits;
	return 0;
}

int cidr_parse(const char *text, struct cidr *out)
{
	char host[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	struct cidr cidr = {0};
	struct in_addr v4;
	struct in6_addr v6;
	unsigned base, bits;

	if (len >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = '\0';
	if (inet_pton(AF_INET, host, &v4) == 1) {
		map_v4(&v4, cidr.bytes);
		base = V4_BITS;
	} else if (inet_pton(AF_INET6, host, &v6) == 1) {
		memcpy(cidr.bytes, &v6, sizeof(cidr.bytes));
		base = 0;
	} else {
		return -EINVAL;
	}
	bits = 128 - base;
	if (slash && parse_bits(slash + 1, bits, &bits))
		return -EINVAL;
	cidr.bits = base + bits;
	*out = cidr;
	return 0;
}

bool cidr_contains(const struct cidr *cidr, const struct sock_addr *addr)
{
	uint8_t bytes[16];
	unsigned whole = cidr->bits / 8;
	unsigned rest = cidr->bits % 8;
	uint8_t mask = (uint8_t)(0xff00u >> rest);

	if (addr->ss.ss_family == AF_INET)
		map_v4(&((const struct sockaddr_in *)&addr->ss)->sin_addr,
			bytes);
	else if (addr->ss.ss_family == AF_INET6)
		memcpy(bytes,
			&((const struct sockaddr_in6 *)&addr->ss)->sin6_addr,
			sizeof(bytes));
	else
		return false;
	if (memcmp(bytes, cidr->bytes, whole) != 0)
		return false;
	return !rest || !((bytes[whole] ^ cidr->bytes[whole]) & mask);
}
