/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of numbers: default, least and greatest value of each, and the
 * units a person may write. Owns nothing.
 *
 * Numbers with a unit are read here, not by cyaml, which knows no units; those
 * without were already loaded by cyaml and are read again for their range.
 */
#include "shared/conf_number.h"

#include <stdio.h>
#include <string.h>

#define SECOND 1000ull
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define MEMBER(member) \
	offsetof(struct conf, member), sizeof(((struct conf *)NULL)->member)

/* clang-format off */
const struct conf_number conf_numbers[] = {
	/* path, unit, member, default, min, max */
	{"auth_service.keep_alive_count_max", CONF_UNIT_NONE,
		MEMBER(auth.keep_alive_count_max), 2, 1, 100},
	{"auth_service.keep_alive_interval", CONF_UNIT_TIME,
		MEMBER(auth.keep_alive_interval), 15 * SECOND, 100, HOUR},
	{"auth_service.lease_ttl", CONF_UNIT_TIME,
		MEMBER(auth.lease_ttl), 5 * SECOND, 2 * SECOND, 10 * MINUTE},
	{"auth_service.storage.compaction", CONF_UNIT_TIME,
		MEMBER(auth.storage.compaction), 30 * MINUTE, 0, 24 * HOUR},
	/* 0 means 1, as in the reference */
	{"auth_service.tunnel_strategy.agent_connection_count", CONF_UNIT_NONE,
		MEMBER(auth.tunnel_strategy.agent_connection_count), 1, 0, 1000},
	{"proxy_service.workers", CONF_UNIT_NONE,
		MEMBER(proxy.workers), 1, 1, 64},
	{"proxy_service.dial_timeout", CONF_UNIT_TIME,
		MEMBER(proxy.dial_timeout), 10 * SECOND, 100, 10 * MINUTE},
	{"proxy_service.handshake_timeout", CONF_UNIT_TIME,
		MEMBER(proxy.handshake_timeout), 10 * SECOND, 100, 10 * MINUTE},
	{"proxy_service.max_handshakes", CONF_UNIT_NONE,
		MEMBER(proxy.max_handshakes), 256, 1, 100000},
	{"proxy_service.max_tunnel_handshakes", CONF_UNIT_NONE,
		MEMBER(proxy.max_tunnel_handshakes), 160, 1, 100000},
	{"proxy_service.max_clients", CONF_UNIT_NONE,
		MEMBER(proxy.max_clients), 10000, 1, 1000000},
	{"proxy_service.max_tunnels", CONF_UNIT_NONE,
		MEMBER(proxy.max_tunnels), 20000, 1, 1000000},
	{"proxy_service.drain_timeout", CONF_UNIT_TIME,
		MEMBER(proxy.drain_timeout), 5 * MINUTE, 0, 24 * HOUR},
	{"proxy_service.rebalance.threshold", CONF_UNIT_NONE,
		MEMBER(proxy.rebalance.threshold), 10, 1, 1000},
	{"proxy_service.rebalance.rate", CONF_UNIT_NONE,
		MEMBER(proxy.rebalance.rate), 10, 0, 1000},
	{"proxy_service.stream_buffer_max", CONF_UNIT_SIZE,
		MEMBER(proxy.stream_buffer_max), 4 * MIB, 64 * KIB, GIB},
	{"proxy_service.buffer_max", CONF_UNIT_SIZE,
		MEMBER(proxy.buffer_max), 256 * MIB, MIB, 1024 * GIB},
	{"proxy_service.peer_memory_max", CONF_UNIT_SIZE,
		MEMBER(proxy.peer_memory_max), 256 * MIB, 16 * MIB, 1024 * GIB},
	{"proxy_service.peer_connections", CONF_UNIT_NONE,
		MEMBER(proxy.peer_connections), 1, 1, CONF_PEER_CONNECTIONS_MAX},
	{"proxy_service.generation", CONF_UNIT_NONE,
		MEMBER(proxy.generation), 0, 0, INT64_MAX},
	{"agent_service.surplus_timeout", CONF_UNIT_TIME,
		MEMBER(agent.surplus_timeout), 30 * MINUTE, 0, 24 * HOUR},
	{"agent_service.max_streams", CONF_UNIT_NONE,
		MEMBER(agent.max_streams), 10000, 1, 1000000},
	{"agent_service.reconnect_max_interval", CONF_UNIT_TIME,
		MEMBER(agent.reconnect_max_interval), 5 * SECOND, SECOND, HOUR},
};
/* clang-format on */
const size_t conf_number_count = sizeof(conf_numbers) / sizeof(conf_numbers[0]);

struct suffix {
	const char *text;
	uint64_t factor;
};

static const struct suffix time_suffixes[] = {
	{"ms", 1},
	{"s", SECOND},
	{"m", MINUTE},
	{"h", HOUR},
	{NULL, 0},
};

static const struct suffix size_suffixes[] = {
	{"", 1},
	{"KiB", KIB},
	{"MiB", MIB},
	{"GiB", GIB},
	{NULL, 0},
};

static const struct suffix no_suffixes[] = {
	{"", 1},
	{NULL, 0},
};

static const struct unit {
	const struct suffix *suffixes;
	const char *wanted;
} units[] = {
	[CONF_UNIT_NONE] = {no_suffixes, "a whole number"},
	[CONF_UNIT_TIME] = {time_suffixes,
		"a time with its unit, such as 500ms, 15s, 2m or 1h"},
	[CONF_UNIT_SIZE] = {size_suffixes,
		"a size, such as 65536, 64KiB, 4MiB or 1GiB"},
};

bool conf_number_parse(
	const char *text, enum conf_unit unit, uint64_t *value_out)
{
	const struct suffix *suffix = units[unit].suffixes;
	uint64_t value = 0;
	size_t len = strspn(text, "0123456789");

	if (!len || (text[0] == '0' && len > 1))
		return false;
	for (size_t i = 0; i < len; i++)
		if (__builtin_mul_overflow(value, 10, &value) ||
			__builtin_add_overflow(value, text[i] - '0', &value))
			return false;
	while (suffix->text && strcmp(suffix->text, text + len))
		suffix++;
	/* Nought needs no unit. */
	if (!suffix->text && (value || text[len]))
		return false;
	if (suffix->text &&
		__builtin_mul_overflow(value, suffix->factor, &value))
		return false;
	*value_out = value;
	return true;
}

bool conf_number_check(const struct conf_node *node, enum conf_unit unit,
	uint64_t *value_out, struct conf_error *error)
{
	const char *text = node->text;
	const char *wanted = units[unit].wanted;

	if (node->kind != CONF_SCALAR)
		return conf_error_at(error, node, "must be %s", wanted);
	if (conf_number_parse(text, unit, value_out))
		return true;
	if (text[0] == '0' && strspn(text, "0123456789") > 1)
		return conf_error_at(error, node,
			"\"%.64s\" begins with 0, which could mean octal: "
			"leave the 0 out",
			text);
	if (text[0] == '-')
		return conf_error_at(error, node,
			"\"%.64s\" is negative: must be %s", text, wanted);
	return conf_error_at(error, node, "\"%.64s\" is not %s", text, wanted);
}

void conf_number_format(
	uint64_t value, enum conf_unit unit, char *text, size_t size)
{
	const struct suffix *best = NULL;

	for (const struct suffix *s = units[unit].suffixes; s->text; s++)
		if (value % s->factor == 0 && (value || !best))
			best = s;
	if (!best)
		best = units[unit].suffixes;
	snprintf(text, size, "%llu%s",
		(unsigned long long)(value / best->factor), best->text);
}

static bool load_number(struct conf *conf, const struct conf_number *number,
	const struct conf_node *root, struct conf_error *error)
{
	const struct conf_node *node = conf_tree_find(root, number->path);
	uint64_t value = number->standard;
	uint32_t small;
	char min[32];
	char max[32];

	if (node && !conf_number_check(node, number->unit, &value, error))
		return false;
	if (value < number->min || value > number->max) {
		conf_number_format(number->min, number->unit, min, sizeof(min));
		conf_number_format(number->max, number->unit, max, sizeof(max));
		return conf_error_at(error, node,
			"%.64s is out of range: must be %s to %s", node->text,
			min, max);
	}
	small = value;
	memcpy((char *)conf + number->offset,
		number->size == sizeof(small) ? (void *)&small : (void *)&value,
		number->size);
	return true;
}

bool conf_numbers_load(struct conf *conf, const struct conf_node *root,
	struct conf_error *error)
{
	for (size_t i = 0; i < conf_number_count; i++)
		if (!load_number(conf, &conf_numbers[i], root, error))
			return false;
	return true;
}
