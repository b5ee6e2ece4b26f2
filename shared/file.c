/* SPDX-License-Identifier: Apache-2.0 */
/* See file.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/file.h"

#define FILE_MAX (1 << 20)
#define COPY_CHUNK 65536

char *file_text(const char *path, char **error_out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *text = NULL;
	size_t len = 0;

	if (fd < 0 || fstat(fd, &st) < 0) {
		*error_out = xasprintf("%s: %s", path, strerror(errno));
	} else if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
		*error_out = xasprintf(
			"%s: not a regular file of at most 1 MiB", path);
	} else {
		text = xcalloc(1, st.st_size + 1);
		while (len < (size_t)st.st_size) {
			ssize_t n = read(fd, text + len, st.st_size - len);

			if (n <= 0)
				break;
			len += n;
		}
	}
	if (fd >= 0)
		close(fd);
	return text;
}

int file_copy(int from, int to, bool *reading_out)
{
	char buf[COPY_CHUNK];
	ssize_t n;

	*reading_out = false;
	while ((n = read(from, buf, sizeof(buf))) > 0)
		for (ssize_t at = 0, put; at < n; at += put) {
			put = write(to, buf + at, (size_t)(n - at));
			if (put < 0)
				return -errno;
		}
	*reading_out = n < 0;
	return n < 0 ? -errno : 0;
}
