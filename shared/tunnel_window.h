/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * When to give a sender credit, and how much: the receiver's half of HTTP/2
 * flow control for one stream or one connection. Pure: facts in, an increment
 * for WINDOW_UPDATE out.
 *
 * Credit goes out every quarter window (at most every TUNNEL_WINDOW_STEP
 * bytes): nghttp2's own rule, half a window at a time, costs half the speed as
 * soon as there is a round trip to wait for. A window doubles when half of it
 * came within one round trip, and never shrinks: an open window cannot be
 * taken back.
 */

#include <stdbool.h>
#include <stdint.h>

#define TUNNEL_WINDOW_STEP (128u << 10)

struct tunnel_window {
	uint32_t size;	      /* what the sender may have under way */
	uint32_t credit;      /* used and free again, not yet announced */
	uint32_t round_bytes; /* since round_start */
	int64_t round_start;  /* microseconds */
};

struct tunnel_window_facts {
	int64_t now_us;
	uint32_t rtt_us; /* 0: not known, no growth */
	uint32_t max;	 /* the window may grow to this */
	uint64_t room;	 /* by how much all windows may still grow */
	bool drains;	 /* nothing waits behind what is being credited */
};

/* bytes of the window are free again; the increment to announce now, or 0. */
uint32_t tunnel_window_credit(struct tunnel_window *window, uint32_t bytes,
	const struct tunnel_window_facts *facts);
/* Grows to size (no smaller) at once, within room; the increment, or 0. */
uint32_t tunnel_window_widen(
	struct tunnel_window *window, uint32_t size, uint64_t room);
