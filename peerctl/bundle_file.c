/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An archive by libarchive, see bundle_file.h. The first error is kept, and
 * told at the end.
 */
#include "peerctl/bundle_file.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shared/alloc.h"

struct bundle_file {
	struct archive *archive;
	char *path;
	char *directory;
	char *manifest;
	char *error; /* NULL: none yet */
	unsigned count;
	int fd;
};

static void fail(struct bundle_file *bundle)
{
	if (!bundle->error)
		bundle->error = xasprintf("%s: %s", bundle->path,
			archive_error_string(bundle->archive)
				? archive_error_string(bundle->archive)
				: "cannot be written");
}

struct bundle_file *bundle_file_new(
	const char *path, const char *directory, char **error_out)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct bundle_file *bundle;

	if (fd < 0) {
		*error_out = xasprintf("%s: %s", path, strerror(errno));
		return NULL;
	}
	bundle = xcalloc(1, sizeof(*bundle));
	bundle->path = xstrdup(path);
	bundle->directory = xstrdup(directory);
	bundle->manifest = xstrdup("");
	bundle->fd = fd;
	bundle->archive = archive_write_new();
	if (archive_write_set_format_pax_restricted(bundle->archive) !=
			ARCHIVE_OK ||
		archive_write_add_filter_gzip(bundle->archive) != ARCHIVE_OK ||
		archive_write_open_fd(bundle->archive, fd) != ARCHIVE_OK)
		fail(bundle);
	return bundle;
}

static void note(struct bundle_file *bundle, char *line)
{
	char *longer = xasprintf("%s%s\n", bundle->manifest, line);

	free(bundle->manifest);
	bundle->manifest = longer;
	free(line);
}

static void write_entry(
	struct bundle_file *bundle, const char *name, const char *text)
{
	struct archive_entry *entry = archive_entry_new();
	char *path = xasprintf("%s/%s", bundle->directory, name);
	size_t len = strlen(text);

	archive_entry_set_pathname(entry, path);
	archive_entry_set_size(entry, (la_int64_t)len);
	archive_entry_set_filetype(entry, AE_IFREG);
	archive_entry_set_perm(entry, 0600);
	archive_entry_set_mtime(entry, time(NULL), 0);
	if (archive_write_header(bundle->archive, entry) != ARCHIVE_OK ||
		archive_write_data(bundle->archive, text, len) !=
			(la_ssize_t)len)
		fail(bundle);
	archive_entry_free(entry);
	free(path);
}

void bundle_file_add(
	struct bundle_file *bundle, const char *name, const char *text)
{
	write_entry(bundle, name, text);
	bundle->count++;
	note(bundle, xasprintf("%s: %zu bytes", name, strlen(text)));
}

void bundle_file_miss(
	struct bundle_file *bundle, const char *name, const char *why)
{
	note(bundle, xasprintf("%s: missing: %s", name, why));
}

unsigned bundle_file_count(const struct bundle_file *bundle)
{
	return bundle->count;
}

int bundle_file_close(struct bundle_file *bundle, char **error_out)
{
	int ret = 0;

	if (!bundle->error)
		write_entry(bundle, "manifest.txt", bundle->manifest);
	if (archive_write_close(bundle->archive) != ARCHIVE_OK)
		fail(bundle);
	archive_write_free(bundle->archive);
	if (close(bundle->fd) < 0 && !bundle->error)
		bundle->error =
			xasprintf("%s: %s", bundle->path, strerror(errno));
	if (bundle->error) {
		unlink(bundle->path);
		*error_out = bundle->error;
		ret = -1;
	}
	free(bundle->path);
	free(bundle->directory);
	free(bundle->manifest);
	free(bundle);
	return ret;
}
