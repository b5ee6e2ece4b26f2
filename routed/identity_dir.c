/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes identities so that a crash at any point leaves the old one in force:
 * files into a directory with a name of its own, fsync, rename to its number,
 * then the symlink by rename. Owns <root> and all below it.
 *
 * What is easily got wrong: modes are set by fchmod, because the umask takes
 * away the group's right to read the key, without which proxy and peerd, which
 * run as other users, have no identity.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "routed/identity_dir.h"
#include "shared/alloc.h"

static const char *const names[] = {
	"cert.pem", "key.pem", "host_ca.pem", "user_ca.pem"};

static char *failed(const char *path)
{
	return xasprintf("%s: %s", path, strerror(errno));
}

static int write_all(int fd, const char *text)
{
	size_t left = strlen(text);

	while (left > 0) {
		ssize_t n = write(fd, text, left);

		if (n < 0)
			return -1;
		text += n;
		left -= (size_t)n;
	}
	return 0;
}

static int write_file(const char *directory, const char *name, mode_t mode,
	const char *text, char **error_out)
{
	char *path = xasprintf("%s/%s", directory, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	int ret = -1;

	if (fd >= 0 && fchmod(fd, mode) == 0 && write_all(fd, text) == 0 &&
		fsync(fd) == 0)
		ret = 0;
	else
		*error_out = failed(path);
	if (fd >= 0)
		close(fd);
	free(path);
	return ret;
}

/* For the group's members, and what is made in it is the group's. */
static int make_directory(const char *path)
{
	if (mkdir(path, 0750) < 0)
		return errno == EEXIST ? 0 : -1;
	return chmod(path, 02750);
}

static void remove_set(const char *directory)
{
	for (int i = 0; i < 4; i++) {
		char *path = xasprintf("%s/%s", directory, names[i]);

		unlink(path);
		free(path);
	}
	rmdir(directory);
}

/* Makes sure that what was renamed is found after a loss of power. */
static void sync_directory(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
}

static int write_set(const char *directory, const struct identity_files *files,
	char **error_out)
{
	remove_set(directory); /* of a crash */
	if (make_directory(directory) < 0) {
		*error_out = failed(directory);
		return -1;
	}
	if (write_file(directory, "cert.pem", 0644, files->cert, error_out) <
			0 ||
		write_file(directory, "key.pem", 0640, files->key, error_out) <
			0 ||
		write_file(directory, "host_ca.pem", 0644, files->host_ca,
			error_out) < 0)
		return -1;
	if (files->user_ca && write_file(directory, "user_ca.pem", 0644,
				      files->user_ca, error_out) < 0)
		return -1;
	sync_directory(directory);
	return 0;
}

static unsigned last_number(const char *root)
{
	DIR *dir = opendir(root);
	struct dirent *entry;
	unsigned last = 0;

	while (dir && (entry = readdir(dir))) {
		char *end;
		unsigned long n = strtoul(entry->d_name, &end, 10);

		if (*end == '\0' && n > last && n < UINT_MAX)
			last = (unsigned)n;
	}
	if (dir)
		closedir(dir);
	return last;
}

static int point_current(const char *root, unsigned n, char **error_out)
{
	char *next = xasprintf("%s/current.new", root);
	char *current = xasprintf("%s/current", root);
	char target[16];
	int ret = 0;

	snprintf(target, sizeof(target), "%u", n);
	unlink(next);
	if (symlink(target, next) < 0 || rename(next, current) < 0) {
		*error_out = failed(current);
		ret = -1;
	}
	sync_directory(root);
	free(next);
	free(current);
	return ret;
}

static void remove_before(const char *root, unsigned n)
{
	DIR *dir = opendir(root);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		char *end;
		unsigned long old = strtoul(entry->d_name, &end, 10);
		char *path;

		if (*end != '\0' || old == 0 || old >= n)
			continue;
		path = xasprintf("%s/%lu", root, old);
		remove_set(path);
		free(path);
	}
	if (dir)
		closedir(dir);
}

char *identity_dir_write(
	const char *root, const struct identity_files *files, char **error_out)
{
	char *partial = xasprintf("%s/partial", root);
	char *directory = NULL;
	unsigned n;

	if (make_directory(root) < 0) {
		*error_out = failed(root);
		goto fail;
	}
	n = last_number(root) + 1;
	if (write_set(partial, files, error_out) < 0)
		goto fail;
	directory = xasprintf("%s/%u", root, n);
	if (rename(partial, directory) < 0) {
		*error_out = failed(directory);
		goto fail;
	}
	if (point_current(root, n, error_out) < 0)
		goto fail;
	if (n > 1)
		remove_before(root, n - 1);
	free(partial);
	return directory;

fail:
	free(partial);
	free(directory);
	return NULL;
}

char *identity_dir_current(const char *root)
{
	char *link = xasprintf("%s/current", root);
	char target[64];
	ssize_t len = readlink(link, target, sizeof(target) - 1);

	free(link);
	if (len <= 0)
		return NULL;
	target[len] = '\0';
	return xasprintf("%s/%s", root, target);
}
