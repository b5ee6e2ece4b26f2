/* SPDX-License-Identifier: Apache-2.0 */
/* Times for status: see clock_text.h. */
#include "peerd/clock_text.h"

#include <stdio.h>
#include <time.h>

int64_t clock_text_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

void clock_text(int64_t unix_ms, char out[CLOCK_TEXT_SIZE])
{
	time_t seconds = unix_ms / 1000;
	struct tm tm;
	char date[24];

	gmtime_r(&seconds, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out, CLOCK_TEXT_SIZE, "%s.%03dZ", date, (int)(unix_ms % 1000));
}
