/* SPDX-License-Identifier: Apache-2.0 */
/* See store.h: a file, and a clock that the test moves. */
#include "tests/unit/auth/store.h"

#include <stdlib.h>

#include "auth/backend_sqlite.h"
#include "shared/alloc.h"

static int64_t store_now(void *arg)
{
	return ((struct store *)arg)->clock;
}

static void begin(struct store *s)
{
	s->clock = 1000000;
}

static void open_store(struct store *s)
{
	char *path = xasprintf("%s/backend.db", s->dir);
	struct backend_sqlite_options options = {.path = path,
		.now = store_now,
		.now_arg = s,
		.max_bytes = s->max_bytes};
	char *error = NULL;

	s->backend = backend_sqlite_new(s->loop, &options, &error);
	if (!s->backend)
		fail_msg("%s", error);
	free(path);
}

static void wait_ms(struct store *s, int64_t ms)
{
	for (; ms > 0; ms -= 500) {
		s->clock += ms < 500 ? ms : 500;
		backend_sqlite_tick(s->backend);
		loop_turn(s->loop, false);
	}
}

static void pass(struct store *s, int64_t ms)
{
	s->clock += ms;
}

static void stall(struct store *s, int64_t ms)
{
	s->clock += ms;
	backend_sqlite_tick(s->backend);
}

static void end(struct store *s)
{
}

const struct store_kind store_sqlite = {
	begin, open_store, wait_ms, pass, stall, end, 500};
