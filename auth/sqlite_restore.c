/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts another store in place, see sqlite_file.h. Owns, while it is at it, the
 * old store's lock, so that no authd starts meanwhile.
 *
 * What a newcomer gets wrong: beside the old store may lie a write-ahead log
 * with its newest changes. It must be in the old file before that is kept, and
 * away before the new file has its name, or SQLite would play it into the new
 * one. And what this process closes it must not clean up: the names are
 * another's by then.
 */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "auth/sqlite_file.h"
#include "shared/alloc.h"
#include "shared/file.h"

struct restore {
	const char *path;
	char *directory;
	char *fresh;  /* the new store, until it is in place */
	char *kept;   /* the old one's other name */
	sqlite3 *old; /* locked; NULL: none */
	bool there;   /* an old one is */
	bool damaged; /* and of no use to SQLite */
	char *error;
};

static bool fail(struct restore *restore, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static bool fail(struct restore *restore, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	restore->error = xvasprintf(format, ap);
	va_end(ap);
	return false;
}

/* ---- the old store ---- */

static bool lock_old(struct restore *restore)
{
	int ret;

	restore->there = access(restore->path, F_OK) == 0;
	if (!restore->there)
		return true;
	ret = sqlite3_open_v2(
		restore->path, &restore->old, SQLITE_OPEN_READWRITE, NULL);
	if (ret == SQLITE_OK)
		ret = sqlite3_exec(restore->old,
			"PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE;"
			"COMMIT",
			NULL, NULL, NULL);
	if (ret == SQLITE_BUSY)
		return fail(restore,
			"authd is running: it has %s open; stop it first",
			restore->path);
	if (ret != SQLITE_OK && ret != SQLITE_NOTADB && ret != SQLITE_CORRUPT)
		return fail(restore, "%s: %s", restore->path,
			sqlite3_errmsg(restore->old));
	restore->damaged = ret != SQLITE_OK;
	return true;
}

/* Whether closing it tidies up what has its name. */
static void set_tidy(struct restore *restore, int tidy)
{
	int persist = !tidy;

	if (!restore->old)
		return;
	sqlite3_file_control(
		restore->old, "main", SQLITE_FCNTL_PERSIST_WAL, &persist);
	sqlite3_db_config(restore->old, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !tidy,
		(int *)NULL);
}

/* The write-ahead log's content into the file; it is empty then. */
static void settle_old(struct restore *restore)
{
	if (restore->there && !restore->damaged &&
		sqlite3_wal_checkpoint_v2(restore->old, NULL,
			SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) != SQLITE_OK)
		restore->damaged = true;
}

/* ---- the new one ---- */

static bool copy_bytes(struct restore *restore, int from, int to)
{
	bool reading;
	int ret = file_copy(from, to, &reading);

	if (ret && reading)
		return fail(restore, "cannot be read: %s", strerror(-ret));
	return !ret || fail(restore, "%s: %s", restore->fresh, strerror(-ret));
}

/* Closing another descriptor of the old store would give up its lock. */
static bool is_old(const struct restore *restore, int fd)
{
	struct stat old, given;

	return restore->there && fstat(fd, &given) == 0 &&
	       stat(restore->path, &old) == 0 && old.st_dev == given.st_dev &&
	       old.st_ino == given.st_ino;
}

static bool copy_fresh(struct restore *restore, int from)
{
	int fd = mkostemp(restore->fresh, O_CLOEXEC); /* mode 0600 */
	bool ok;

	if (fd < 0) {
		free(restore->fresh);
		restore->fresh = NULL;
		return fail(
			restore, "%s: %s", restore->directory, strerror(errno));
	}
	ok = is_old(restore, from) ? fail(restore, "it is the store itself")
				   : copy_bytes(restore, from, fd);
	close(fd);
	return ok;
}

/* The inode that the file says is its own: never a real one, so that authd
 * knows it for a copy that was put back, whatever inode it has got. */
static bool mark_fresh(struct restore *restore)
{
	sqlite3 *db = NULL;
	bool ok;

	ok = sqlite3_open_v2(restore->fresh, &db, SQLITE_OPEN_READWRITE,
		     NULL) == SQLITE_OK &&
	     sqlite3_exec(db,
		     "PRAGMA synchronous=FULL;"
		     "UPDATE meta SET value = '-1' WHERE key = 'inode'",
		     NULL, NULL, NULL) == SQLITE_OK;
	if (!ok)
		fail(restore, "%s: %s", restore->fresh, sqlite3_errmsg(db));
	sqlite3_close(db);
	return ok;
}

static bool check_fresh(
	struct restore *restore, const char *cluster, struct sqlite_file *out)
{
	restore->error = sqlite_file_fault(restore->fresh, out);
	if (restore->error)
		return false;
	if (strcmp(out->cluster, cluster))
		return fail(restore,
			"it is of cluster %s, and this host's is %s",
			out->cluster, cluster);
	return mark_fresh(restore);
}

/* ---- in place ---- */

static bool sync_path(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW);
	bool ok = fd >= 0 && fsync(fd) == 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

static void name_kept(struct restore *restore)
{
	char when[32];
	time_t now = time(NULL);
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &tm);
	restore->kept = xasprintf("%s.before-restore-%s", restore->path, when);
}

/* What lies beside a store that SQLite cannot settle, or beside none, would be
 * played into the new one. */
static void move_logs(const char *of, const char *to)
{
	static const char *const suffixes[] = {"-wal", "-journal"};

	for (int i = 0; i < 2; i++) {
		char *from_path = xasprintf("%s%s", of, suffixes[i]);
		char *to_path = xasprintf("%s%s", to, suffixes[i]);

		rename(from_path, to_path);
		free(from_path);
		free(to_path);
	}
}

/* 0, or -1 and errno; then nothing has changed. */
static int replace_old(struct restore *restore)
{
	bool settled = restore->there && !restore->damaged;
	int error;

	if (restore->there && link(restore->path, restore->kept) < 0)
		return -1;
	set_tidy(restore, false);
	if (!settled)
		move_logs(restore->path, restore->kept);
	/* when there is none: unless an authd has just begun one */
	if (restore->there ? rename(restore->fresh, restore->path) == 0
			   : link(restore->fresh, restore->path) == 0)
		return 0;
	error = errno;
	if (!settled)
		move_logs(restore->kept, restore->path);
	set_tidy(restore, true);
	if (restore->there)
		unlink(restore->kept);
	errno = error;
	return -1;
}

static bool put_in_place(struct restore *restore)
{
	name_kept(restore);
	if (!sync_path(restore->fresh, O_RDWR) || replace_old(restore) < 0)
		return fail(restore, "%s: %s", restore->path, strerror(errno));
	unlink(restore->fresh); /* its other name, if it was linked */
	sync_path(restore->directory, O_RDONLY | O_DIRECTORY);
	return true;
}

bool sqlite_file_restore(const char *path, int fd, const char *cluster,
	struct sqlite_file *out, char **kept_out, char **error_out)
{
	struct restore restore = {
		.path = path,
		.directory = xstrndup(path, strrchr(path, '/') - path),
		.fresh = xasprintf("%s.restore-XXXXXX", path),
	};
	bool ok = lock_old(&restore) && copy_fresh(&restore, fd) &&
		  check_fresh(&restore, cluster, out);

	if (ok) {
		settle_old(&restore);
		ok = put_in_place(&restore);
	}
	if (!ok && restore.fresh)
		unlink(restore.fresh);
	sqlite3_close(restore.old);
	*kept_out = NULL;
	if (ok && restore.there)
		*kept_out = restore.kept;
	else
		free(restore.kept);
	*error_out = restore.error;
	free(restore.fresh);
	free(restore.directory);
	return ok;
}
