/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Notices that the store's file is not the one this authd left behind, but an
 * older copy put in its place, and then gives the store a new id: its revisions
 * are about to happen a second time with other contents, and a watcher that
 * resumed by number would miss what it never saw.
 *
 * Two signs, since none is enough: the file remembers its own inode number,
 * which a copy or an unpacked archive does not have; and beside it lies a note
 * of how far it had come when it was last closed, which catches a copy written
 * over the same inode. A false alarm costs every watcher one snapshot.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "auth/sqlite_impl.h"
#include "shared/alloc.h"
#include "shared/identity.h"
#include "shared/log.h"

#define NOTE_MAX 128

static char *note_path(const char *path, const char *suffix)
{
	return xasprintf("%s-last%s", path, suffix);
}

/* Whether the note says that this store has once been further. */
static bool was_further(const struct sqlite_db *db)
{
	char *path = note_path(db->path, "");
	char text[NOTE_MAX] = "";
	char id[64];
	uint64_t revision;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	free(path);
	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return sscanf(text, "%63s %" SCNu64, id, &revision) == 2 &&
	       !strcmp(id, db->store_id) && revision > db->revision;
}

void sqlite_origin_note(const struct sqlite_db *db)
{
	char *path = note_path(db->path, "");
	char *temporary = note_path(db->path, ".new");
	char text[NOTE_MAX];
	int len = snprintf(text, sizeof(text), "%s %" PRIu64 "\n", db->store_id,
		db->safe_revision);
	int fd = open(temporary,
		O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	bool ok = fd >= 0 && write(fd, text, len) == len;

	if (fd >= 0)
		close(fd);
	if (!ok || rename(temporary, path) < 0)
		log_warn("cannot write %s: %m", path);
	free(temporary);
	free(path);
}

static int set_text(struct sqlite_db *db, const char *key, const char *value)
{
	sqlite3_stmt *stmt;
	int ret;

	if (sqlite3_prepare_v2(db->handle,
		    "INSERT OR REPLACE INTO meta VALUES(?1, ?2)", -1, &stmt,
		    NULL) != SQLITE_OK)
		return sqlite_failed(db);
	sqlite_bind_text(stmt, 1, key);
	sqlite_bind_text(stmt, 2, value);
	ret = sqlite_run(db, stmt);
	sqlite3_finalize(stmt);
	return ret;
}

int sqlite_origin_check(
	struct sqlite_db *db, uint64_t inode, uint64_t known_inode)
{
	char text[24];
	char uuid[37];

	if (known_inode == inode && !was_further(db))
		return 0;
	if (known_inode) {
		identity_uuid_make(uuid);
		log_warn("store was put back from a copy: "
			 "store=%s revision=%" PRIu64 " new_store=%s",
			db->store_id, db->revision, uuid);
		strcpy(db->store_id, uuid);
		db->put_back = true;
		if (set_text(db, "store_id", uuid) < 0)
			return -EIO;
	}
	snprintf(text, sizeof(text), "%" PRIu64, inode);
	return set_text(db, "inode", text);
}
