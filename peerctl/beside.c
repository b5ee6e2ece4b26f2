/* SPDX-License-Identifier: Apache-2.0 */
/* See beside.h. */
#include "peerctl/beside.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/alloc.h"

/* For the signal handler, which may call next to nothing. */
static char *doomed;

static void on_signal(int number)
{
	unlink(doomed);
	signal(number, SIG_DFL);
	raise(number);
}

static void watch_signals(char *path)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};

	doomed = path;
	for (int i = 0; i < 3; i++)
		signal(numbers[i], path ? on_signal : SIG_DFL);
}

int beside_open(struct beside *beside, const char *path)
{
	*beside = (struct beside){
		.path = path,
		.temporary = xasprintf("%s.XXXXXX", path),
	};
	beside->fd = mkostemp(beside->temporary, O_CLOEXEC);
	if (beside->fd >= 0) {
		watch_signals(beside->temporary);
		return 0;
	}
	free(beside->temporary);
	beside->temporary = NULL;
	return -errno;
}

static int sync_directory(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *directory =
		slash ? xstrndup(path, slash - path + 1) : xstrdup(".");
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int ret = fd < 0 || fsync(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	free(directory);
	return ret;
}

/* RENAME_NOREPLACE, or a link where the file system does not know that. */
static int name_if_free(const char *from, const char *to)
{
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (link(from, to) < 0)
		return -errno;
	unlink(from);
	return 0;
}

int beside_place(struct beside *beside, bool replace)
{
	int ret = fsync(beside->fd) < 0 ? -errno : 0;

	if (!ret && replace)
		ret = rename(beside->temporary, beside->path) < 0 ? -errno : 0;
	else if (!ret)
		ret = name_if_free(beside->temporary, beside->path);
	if (ret)
		return ret;
	watch_signals(NULL);
	free(beside->temporary);
	beside->temporary = NULL;
	return sync_directory(beside->path);
}

void beside_drop(struct beside *beside)
{
	if (beside->fd >= 0)
		close(beside->fd);
	beside->fd = -1;
	if (!beside->temporary)
		return;
	unlink(beside->temporary);
	watch_signals(NULL);
	free(beside->temporary);
	beside->temporary = NULL;
}
