/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tunnels that nobody holds look like: ids as spread over the index as
 * random ones are, a name, three labels and a service.
 */
#include "tests/tools/workers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* splitmix64 */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

void workers_agent_id(uint64_t number, char out[37])
{
	uint64_t high = mix(2 * number);
	uint64_t low = mix(2 * number + 1);

	snprintf(out, 37, "%08" PRIx32 "-%04x-4%03x-8%03x-%012" PRIx64,
		(uint32_t)(high >> 32), (unsigned)(high >> 16 & 0xffff),
		(unsigned)(high & 0xfff), (unsigned)(low >> 52),
		low & 0xffffffffffff);
}

static void label(
	struct workers_record *out, int at, const char *name, const char *value)
{
	peerway__record__label__init(&out->labels[at]);
	out->labels[at].name = (char *)name;
	out->labels[at].value = (char *)value;
	out->label_list[at] = &out->labels[at];
}

void workers_record(
	struct workers_record *out, uint64_t number, uint64_t since_ms)
{
	static const char *const rooms[] = {"berlin-1", "lagos-2", "quito-3"};

	workers_agent_id(number, out->agent_id);
	snprintf(out->name, sizeof(out->name), "node-%06" PRIu64, number);
	label(out, 0, "env", "production");
	label(out, 1, "room", rooms[number % 3]);
	label(out, 2, "os", "debian-12");
	peerway__record__service__init(&out->service);
	out->service.name = (char *)"ssh";
	out->service.type = (char *)"node";
	out->service.port = 22;
	out->service_list[0] = &out->service;
	peerway__record__tunnel_record__init(&out->record);
	out->record.agent_id = out->agent_id;
	out->record.name = out->name;
	out->record.n_labels = 3;
	out->record.labels = out->label_list;
	out->record.n_services = 1;
	out->record.services = out->service_list;
	out->record.since_ms = since_ms;
}
