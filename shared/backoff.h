/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How long to wait before something is tried again: grows by one step with
 * each failure up to a limit, and a random half of it is jitter, so that those
 * who failed together do not come back together. Pure.
 */

#include <stdint.h>

struct backoff {
	uint32_t step_ms;
	uint32_t max_ms;
	uint32_t failures;
};

/* Counts a failure; gives milliseconds, between half of
 * min(failures * step, max) and all of it. random: any 32 bits. */
uint32_t backoff_failed(struct backoff *backoff, uint32_t random);
void backoff_succeeded(struct backoff *backoff);
