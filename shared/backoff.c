/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear backoff with jitter. Linear, because what fails here is one of many
 * ways to the same end: doubling would leave a proxy that is back alone for
 * minutes.
 */
#include "shared/backoff.h"

uint32_t backoff_failed(struct backoff *backoff, uint32_t random)
{
	uint64_t delay;

	if (backoff->failures < UINT32_MAX)
		backoff->failures++;
	delay = (uint64_t)backoff->failures * backoff->step_ms;
	if (delay > backoff->max_ms)
		delay = backoff->max_ms;
	return delay - delay / 2 * random / UINT32_MAX;
}

void backoff_succeeded(struct backoff *backoff)
{
	backoff->failures = 0;
}
