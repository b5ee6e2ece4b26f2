/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy of the store while it is in use, by SQLite's online backup. What a
 * newcomer gets wrong: it must be made over the one connection that writes. Its
 * exclusive lock lets in no other, and only what this connection itself writes
 * meanwhile reaches the copied part of the copy without beginning it anew.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "auth/sqlite_impl.h"
#include "shared/alloc.h"

struct sqlite_copy {
	sqlite3 *to;
	sqlite3_backup *backup;
	char *path;
	char *error;
	bool done;
};

/* The file, made here for its mode; false and errno. */
static bool make_file(const char *path)
{
	int fd = open(
		path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/* No journal and no fsync: a copy that is not finished is of no use, and
 * whoever wants it to last has time to wait for the disk. */
static bool begin(struct sqlite_copy *copy, struct sqlite_db *db)
{
	if (sqlite3_open_v2(copy->path, &copy->to, SQLITE_OPEN_READWRITE,
		    NULL) != SQLITE_OK ||
		sqlite3_exec(copy->to,
			"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF", NULL,
			NULL, NULL) != SQLITE_OK)
		return false;
	copy->backup =
		sqlite3_backup_init(copy->to, "main", db->handle, "main");
	return copy->backup != NULL;
}

struct sqlite_copy *sqlite_copy_begin(
	struct sqlite_db *db, const char *path, char **error_out)
{
	struct sqlite_copy *copy;

	if (!make_file(path)) {
		*error_out = xasprintf("%s: %s", path, strerror(errno));
		return NULL;
	}
	copy = xcalloc(1, sizeof(*copy));
	copy->path = xstrdup(path);
	if (begin(copy, db))
		return copy;
	*error_out = xasprintf("%s: %s", path, sqlite3_errmsg(copy->to));
	sqlite_copy_end(copy);
	return NULL;
}

int sqlite_copy_step(struct sqlite_copy *copy, unsigned pages)
{
	int ret = sqlite3_backup_step(copy->backup, (int)pages);

	if (ret == SQLITE_OK || ret == SQLITE_BUSY || ret == SQLITE_LOCKED)
		return 0;
	if (ret == SQLITE_DONE)
		ret = sqlite3_backup_finish(copy->backup);
	else
		sqlite3_backup_finish(copy->backup);
	copy->backup = NULL;
	copy->done = ret == SQLITE_OK;
	if (copy->done)
		return 1;
	copy->error = xasprintf("%s: %s", copy->path, sqlite3_errstr(ret));
	return -EIO;
}

void sqlite_copy_progress(
	const struct sqlite_copy *copy, uint64_t *done_out, uint64_t *of_out)
{
	int all = copy->backup ? sqlite3_backup_pagecount(copy->backup) : 0;
	int left = copy->backup ? sqlite3_backup_remaining(copy->backup) : 0;

	*of_out = (uint64_t)all;
	*done_out = (uint64_t)(all - left);
}

const char *sqlite_copy_error(const struct sqlite_copy *copy)
{
	return copy->error;
}

void sqlite_copy_end(struct sqlite_copy *copy)
{
	if (!copy)
		return;
	sqlite3_backup_finish(copy->backup);
	sqlite3_close(copy->to);
	if (!copy->done)
		unlink(copy->path);
	free(copy->path);
	free(copy->error);
	free(copy);
}
