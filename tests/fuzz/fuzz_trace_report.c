/* SPDX-License-Identifier: Apache-2.0 */
/* A callee's report: any bytes are none, or read back what they say. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "peerd/trace_report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct trace_report report, again;
	char text[TRACE_REPORT_SIZE];

	if (!trace_report_parse((const char *)data, size, &report))
		return 0;
	trace_report_format(&report, text);
	assert(trace_report_parse(text, strlen(text), &again));
	assert(report.worker == again.worker && report.us == again.us);
	return 0;
}
