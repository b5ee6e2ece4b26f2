/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clock of slots and the measured rate behind it. Owns nothing.
 *
 * What a newcomer gets wrong: how fast handshakes finish tells what the host
 * can do only while it has no lack of them, so nothing is measured unless all
 * places were taken. And a crowd that came back exactly at that rate would
 * never fill them again, so a rate once measured too low would stay for good:
 * slots are given out somewhat faster, and a few are refused twice.
 */
#include "proxy/admission.h"

#include <assert.h>

#define RATE_START 200.0 /* until there was something to measure */
#define RATE_MIN 10.0
#define RATE_MAX 5000.0
#define OVERBOOKED 1.25
#define SAMPLE 32      /* handshakes */
#define SAMPLE_MS 2000 /* or so long, if they are slow */
#define SAMPLE_WEIGHT 0.5
#define JITTER 0.2

#define US_PER_S 1000000

void admission_init(struct admission *admission, unsigned bound)
{
	*admission = (struct admission){
		.bound = bound,
		.rate = RATE_START,
		.full_since = -1,
	};
}

bool admission_has_room(const struct admission *admission)
{
	return admission->under_way < admission->bound;
}

bool admission_is_quiet(const struct admission *admission)
{
	return admission->under_way <= (admission->bound - 1) / 2;
}

static double within(double value, double min, double max)
{
	return value < min ? min : value > max ? max : value;
}

/* Counts the time since the last look; takes a sample when there is one. */
static void measure(struct admission *admission, int64_t now)
{
	double rate;

	if (admission->full_since < 0)
		return;
	admission->full_ms += now - admission->full_since;
	admission->full_since = now;
	if (admission->finished < SAMPLE && admission->full_ms < SAMPLE_MS)
		return;
	rate = admission->finished * 1000.0 /
	       within((double)admission->full_ms, 1, SAMPLE_MS * 1000.0);
	admission->rate += (rate - admission->rate) * SAMPLE_WEIGHT;
	admission->rate = within(admission->rate, RATE_MIN, RATE_MAX);
	admission->full_ms = 0;
	admission->finished = 0;
}

void admission_begin(struct admission *admission, int64_t now)
{
	assert(admission_has_room(admission));
	admission->under_way++;
	if (!admission_has_room(admission) && admission->full_since < 0)
		admission->full_since = now;
}

void admission_end(struct admission *admission, int64_t now, bool finished)
{
	assert(admission->under_way > 0);
	admission->under_way--;
	if (admission->full_since < 0)
		return;
	admission->finished += finished;
	measure(admission, now);
	/* still enough to do until half of the places are free */
	if (admission->under_way <= admission->bound / 2)
		admission->full_since = -1;
}

/* Whole seconds, so often the greater as to be right on the average. */
static unsigned round_by_chance(double seconds, double chance)
{
	unsigned whole = (unsigned)seconds;

	return seconds - whole > chance ? whole + 1 : whole;
}

/* seconds with jitter; the halves of random are two dice. */
static unsigned spread(double seconds, uint32_t random)
{
	double die = (random >> 16) / 65536.0;
	double other = (random & 0xffff) / 65536.0;

	seconds *= 1 - JITTER + 2 * JITTER * die;
	return round_by_chance(
		seconds < ADMISSION_MIN_S ? ADMISSION_MIN_S : seconds, other);
}

unsigned admission_retry_after(
	struct admission *admission, int64_t now, uint32_t random)
{
	int64_t now_us = now * 1000;
	int64_t last_us = now_us + (int64_t)ADMISSION_MAX_S * US_PER_S;
	int64_t slot_us;

	measure(admission, now);
	if (admission->next_us < now_us + ADMISSION_MIN_S * US_PER_S)
		admission->next_us = now_us + ADMISSION_MIN_S * US_PER_S;
	slot_us = admission->next_us;
	admission->next_us +=
		(int64_t)(US_PER_S / (admission->rate * OVERBOOKED));
	if (admission->next_us > last_us)
		admission->next_us = last_us;
	return spread((double)(slot_us - now_us) / US_PER_S, random);
}

unsigned admission_retry_late(uint32_t random)
{
	return spread(ADMISSION_MAX_S, random);
}
