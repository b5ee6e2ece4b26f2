/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork and exec of a worker. What a newcomer gets wrong: the wanted numbers may
 * be in use by the very descriptors that are to be moved, so all of them first
 * go out of the way; and dup2() onto itself would keep close-on-exec.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proxy/inherit.h"
#include "proxy/spawn.h"
#include "shared/alloc.h"

#define FIRST_FD INHERIT_LINK
#define CONFIG_MAX (1u << 20)

/* In the child, between fork and exec: only async-signal-safe calls. */
static void become_worker(
	const char *number, const int *fds, int *moved, size_t count)
{
	const char *argv[] = {
		"proxy", "--worker", number, "-c", INHERIT_CONF_PATH, NULL};

	for (size_t i = 0; i < count; i++) {
		moved[i] =
			fcntl(fds[i], F_DUPFD_CLOEXEC, FIRST_FD + (int)count);
		if (moved[i] < 0)
			_exit(126);
	}
	for (size_t i = 0; i < count; i++) {
		if (dup2(moved[i], FIRST_FD + (int)i) < 0)
			_exit(126);
	}
	execv("/proc/self/exe", (char *const *)argv);
	_exit(127);
}

pid_t spawn_worker(uint32_t number, const int *fds, size_t count)
{
	int *moved = xcalloc(count, sizeof(*moved));
	char text[16];
	pid_t pid;

	snprintf(text, sizeof(text), "%u", number);
	pid = fork();
	if (pid == 0)
		become_worker(text, fds, moved, count);
	if (pid < 0)
		pid = -errno;
	free(moved);
	return pid;
}

int spawn_keep_file(const char *path)
{
	char buf[16384];
	size_t total = 0;
	ssize_t n = 0;
	int from = open(path, O_RDONLY | O_CLOEXEC);
	int to = memfd_create("peerway-config", MFD_CLOEXEC);

	while (from >= 0 && to >= 0 && total <= CONFIG_MAX &&
		(n = read(from, buf, sizeof(buf))) > 0) {
		if (write(to, buf, (size_t)n) != n) {
			n = -1;
			break;
		}
		total += (size_t)n;
	}
	if (from < 0 || to < 0 || n < 0) {
		n = errno ? -errno : -EIO;
		if (to >= 0)
			close(to);
		to = (int)n;
	}
	if (from >= 0)
		close(from);
	return to;
}
