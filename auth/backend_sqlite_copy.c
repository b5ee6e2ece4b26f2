/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pace of a copy: a few pages at the end of a turn, behind its commit and
 * before anybody is told of it, then a pause in which the loop serves all
 * others. What a newcomer gets wrong: while a transaction is open no page can
 * be copied, and callbacks of a busy store open the next one at once; so the
 * step has its place inside the end of the turn and not in a timer.
 */
#include <stdlib.h>

#include "auth/backend_sqlite_impl.h"
#include "shared/alloc.h"

#define STEP_PAGES 64 /* 256 KiB */
#define PAUSE_MS 2

struct copying {
	struct sqlite_backend *backend;
	struct sqlite_copy *copy; /* NULL: it could not be begun */
	char *error;		  /* then */
	backend_backup_done *done;
	void *arg;
	struct timer *pause;
	bool due;
};

static void on_pause_over(void *arg)
{
	struct copying *copying = arg;

	copying->due = true;
	sqlite_backend_wake(copying->backend);
}

static void finish(struct copying *copying, const char *error)
{
	struct sqlite_backend *b = copying->backend;

	b->copying = NULL;
	timer_free(copying->pause);
	copying->done(copying->arg, error);
	sqlite_copy_end(copying->copy);
	free(copying->error);
	free(copying);
}

bool sqlite_backup(struct backend *base, const char *path,
	backend_backup_done *done, void *arg)
{
	struct sqlite_backend *b = (struct sqlite_backend *)base;
	struct copying *copying;

	if (b->copying)
		return false;
	copying = xcalloc(1, sizeof(*copying));
	copying->backend = b;
	copying->done = done;
	copying->arg = arg;
	copying->copy = sqlite_copy_begin(b->db, path, &copying->error);
	copying->pause = timer_new(b->loop, on_pause_over, copying);
	b->copying = copying;
	timer_set(copying->pause, 0);
	return true;
}

void sqlite_backup_progress(
	const struct backend *base, uint64_t *done_out, uint64_t *of_out)
{
	const struct sqlite_backend *b = (const struct sqlite_backend *)base;

	*done_out = 0;
	*of_out = 0;
	if (b->copying && b->copying->copy)
		sqlite_copy_progress(b->copying->copy, done_out, of_out);
}

void sqlite_copying_turn(struct sqlite_backend *b)
{
	struct copying *copying = b->copying;
	int ret;

	if (!copying || !copying->due)
		return;
	copying->due = false;
	if (!copying->copy) {
		finish(copying, copying->error);
		return;
	}
	ret = sqlite_copy_step(copying->copy, STEP_PAGES);
	if (ret == 0)
		timer_set(copying->pause, PAUSE_MS);
	else
		finish(copying,
			ret > 0 ? NULL : sqlite_copy_error(copying->copy));
}

void sqlite_copying_free(struct sqlite_backend *b)
{
	if (b->copying)
		finish(b->copying, "authd stops");
}
