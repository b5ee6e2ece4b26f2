/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a callee says of a dial that went well, in the metadata TRACE_KEY of its
 * answer, to a caller that announced EXT_TRACE: "worker=0;us=1234". Pure.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_KEY "peerway-trace"

struct trace_report {
	uint32_t worker; /* that has the tunnel */
	uint64_t us;	 /* that it and the agent took, until connected */
};

#define TRACE_REPORT_SIZE 64

void trace_report_format(
	const struct trace_report *report, char out[TRACE_REPORT_SIZE]);
/* False, and *out untouched, unless both are there; what else is there is
 * skipped. */
bool trace_report_parse(const char *text, size_t len, struct trace_report *out);
