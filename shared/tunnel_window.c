/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flow control decisions: see tunnel_window.h.
 */
#include "shared/tunnel_window.h"

static uint32_t step(const struct tunnel_window *window)
{
	uint32_t quarter = window->size / 4;

	return quarter < TUNNEL_WINDOW_STEP ? quarter : TUNNEL_WINDOW_STEP;
}

/* Whether half the window has come within one round trip. */
static bool is_short(struct tunnel_window *window, uint32_t bytes,
	const struct tunnel_window_facts *facts)
{
	if (facts->now_us - window->round_start > facts->rtt_us) {
		window->round_start = facts->now_us;
		window->round_bytes = 0;
	}
	window->round_bytes += bytes;
	if (window->round_bytes < window->size / 2)
		return false;
	window->round_start = facts->now_us;
	window->round_bytes = 0;
	return true;
}

uint32_t tunnel_window_widen(
	struct tunnel_window *window, uint32_t size, uint64_t room)
{
	uint32_t growth;

	if (size <= window->size)
		return 0;
	growth = size - window->size;
	if (growth > room)
		return 0;
	window->size += growth;
	return growth;
}

uint32_t tunnel_window_credit(struct tunnel_window *window, uint32_t bytes,
	const struct tunnel_window_facts *facts)
{
	uint32_t growth = 0;
	uint32_t increment;

	window->credit += bytes;
	if (facts->rtt_us > 0 && is_short(window, bytes, facts) &&
		facts->drains) {
		uint32_t size = window->size < facts->max / 2 ? window->size * 2
							      : facts->max;

		growth = tunnel_window_widen(window, size, facts->room);
	}
	if (growth == 0 && window->credit < step(window))
		return 0;
	increment = window->credit + growth;
	window->credit = 0;
	return increment;
}
