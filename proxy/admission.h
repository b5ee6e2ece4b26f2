/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How many agents' handshakes run at once, and when those come back for whom
 * there is no room.
 *
 * When thousands of agents come at once, each refusal gives away the next slot
 * of a clock that runs as fast as handshakes finish here; slots that nobody
 * used lapse. So the crowd comes back at the pace at which it is let in, and
 * not all together. Pure: time and random bits are passed in.
 */

#include <stdbool.h>
#include <stdint.h>

#define ADMISSION_MIN_S 1
#define ADMISSION_MAX_S 60

struct admission {
	unsigned bound;
	unsigned under_way;
	double rate; /* handshakes a second, when there is no lack of them */

	int64_t next_us; /* the slot that the next refusal gives away */

	/* what is being measured, of the time when there was no room */
	int64_t full_since; /* ms; -1: there is room */
	int64_t full_ms;
	unsigned finished;
};

void admission_init(struct admission *admission, unsigned bound);
bool admission_has_room(const struct admission *admission);
/* Half of the places are free. */
bool admission_is_quiet(const struct admission *admission);
/* A handshake begins (there has to be room), and ends: finished, or given up.
 * now: milliseconds of a clock that does not jump. */
void admission_begin(struct admission *admission, int64_t now);
void admission_end(struct admission *admission, int64_t now, bool finished);

/* There is no room: in how many seconds to come back, from ADMISSION_MIN_S to
 * ADMISSION_MAX_S and a fifth of it more or less. random: any 32 bits. */
unsigned admission_retry_after(
	struct admission *admission, int64_t now, uint32_t random);
/* The same where waiting for a handshake's end does not help: the most. */
unsigned admission_retry_late(uint32_t random);
