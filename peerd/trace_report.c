/* SPDX-License-Identifier: Apache-2.0 */
/* A callee's word on a dial: see trace_report.h. A newcomer's trap: it comes
 * from the network and is not terminated. */
#include "peerd/trace_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* No worker and no dial is beyond this. */
#define NUMBER_MAX 1000000000000ull

void trace_report_format(
	const struct trace_report *report, char out[TRACE_REPORT_SIZE])
{
	snprintf(out, TRACE_REPORT_SIZE, "worker=%" PRIu32 ";us=%" PRIu64,
		report->worker, report->us);
}

static bool number(const char *text, size_t len, uint64_t *out)
{
	uint64_t value = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		value = value * 10 + (uint64_t)(text[i] - '0');
		if (value > NUMBER_MAX)
			return false;
	}
	if (len > 0)
		*out = value;
	return len > 0;
}

/* Whether the part of len bytes is "<key>=<number>". */
static bool part_is(
	const char *part, size_t len, const char *key, uint64_t *out)
{
	size_t head = strlen(key);

	return len > head && memcmp(part, key, head) == 0 &&
	       part[head] == '=' &&
	       number(part + head + 1, len - head - 1, out);
}

bool trace_report_parse(const char *text, size_t len, struct trace_report *out)
{
	const char *end = text + len;
	uint64_t worker = UINT64_MAX;
	uint64_t us = UINT64_MAX;

	while (text < end) {
		const char *stop = memchr(text, ';', (size_t)(end - text));
		size_t part = (size_t)((stop ? stop : end) - text);

		if (!part_is(text, part, "worker", &worker))
			part_is(text, part, "us", &us);
		text = stop ? stop + 1 : end;
	}
	if (worker > UINT32_MAX || us == UINT64_MAX)
		return false;
	out->worker = (uint32_t)worker;
	out->us = us;
	return true;
}
