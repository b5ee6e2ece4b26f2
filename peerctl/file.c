/* SPDX-License-Identifier: Apache-2.0 */
/* Files that peerctl leaves behind: keys, certificates, tokens. */
#include "peerctl/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/alloc.h"

#define FILE_SIZE_MAX 65536

static int write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= n;
	}
	return 0;
}

int file_write(const char *path, mode_t mode, const void *data, size_t len)
{
	char *beside = xasprintf("%s.XXXXXX", path);
	int fd = mkostemp(beside, O_CLOEXEC); /* mode 0600 */
	int ret = fd < 0 ? -errno : write_all(fd, data, len);

	if (fd >= 0) {
		if (!ret && fchmod(fd, mode) < 0)
			ret = -errno;
		if (close(fd) < 0 && !ret)
			ret = -errno;
		if (!ret && rename(beside, path) < 0)
			ret = -errno;
		if (ret)
			unlink(beside);
	}
	free(beside);
	return ret;
}

char *file_read(const char *path)
{
	FILE *file = fopen(path, "re");
	char *text;
	size_t len;
	bool ok;

	if (!file)
		return NULL;
	text = xcalloc(1, FILE_SIZE_MAX + 1);
	len = fread(text, 1, FILE_SIZE_MAX + 1, file);
	ok = !ferror(file) && len <= FILE_SIZE_MAX && !memchr(text, 0, len);
	fclose(file);
	if (ok)
		return text;
	free(text);
	errno = EBADMSG;
	return NULL;
}
