/* SPDX-License-Identifier: Apache-2.0 */
/* See lag.h. The clock is read anew, since loop_now() is as of the turn. */
#include "shared/lag.h"

#include <stdlib.h>
#include <time.h>

#include "shared/alloc.h"

#define PERIOD_MS 1000

/* 1 ms to 32 s */
const struct histogram_shape lag_shape = {
	.first = 1000, .step = 1, .count = 16, .unit = 1e-6};

struct lag {
	struct timer *timer;
	struct metrics *metrics;
	size_t index;
	int64_t due; /* us */
};

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static void rest(struct lag *lag)
{
	lag->due = now_us() + PERIOD_MS * 1000;
	timer_set(lag->timer, PERIOD_MS);
}

static void on_timer(void *arg)
{
	struct lag *lag = arg;
	int64_t late = now_us() - lag->due;

	metric_observe(lag->metrics, lag->index, late > 0 ? late : 0);
	rest(lag);
}

struct lag *lag_new(struct loop *loop, struct metrics *metrics, size_t index)
{
	struct lag *lag = xcalloc(1, sizeof(*lag));

	lag->metrics = metrics;
	lag->index = index;
	lag->timer = timer_new(loop, on_timer, lag);
	rest(lag);
	return lag;
}

void lag_free(struct lag *lag)
{
	if (!lag)
		return;
	timer_free(lag->timer);
	free(lag);
}
