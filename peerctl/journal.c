/* SPDX-License-Identifier: Apache-2.0 */
/* journalctl's output, through a pipe, with a bound on time and size. */
#include "peerctl/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared/alloc.h"

#define TEXT_MAX (8 << 20)
#define CHUNK 65536

extern char **environ;

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

/* 0 or an error number. */
static int start(int to, pid_t *pid_out)
{
	static const char *const argv[] = {"journalctl", "--no-pager",
		"--quiet", "--lines", "10000", "--output", "short-iso-precise",
		"--unit", "peerway-*", NULL};
	posix_spawn_file_actions_t actions;
	int ret;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, to, STDOUT_FILENO);
	posix_spawn_file_actions_addopen(
		&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	ret = posix_spawnp(
		pid_out, argv[0], &actions, NULL, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return ret;
}

/* Until the end, or until the time or the room is over. */
static char *read_all(int fd, int timeout_ms)
{
	int64_t deadline = now_ms() + timeout_ms;
	char *text = xcalloc(1, 1);
	size_t len = 0;

	while (len < TEXT_MAX) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = deadline - now_ms();
		ssize_t n;

		if (left <= 0 || poll(&p, 1, (int)left) <= 0)
			break;
		text = xrealloc(text, len + CHUNK + 1);
		n = read(fd, text + len, CHUNK);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	text[len] = '\0';
	return text;
}

char *journal_read(int timeout_ms, char **error_out)
{
	int pipe_fds[2];
	char *text;
	pid_t pid;
	int ret;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
		*error_out = xstrdup(strerror(errno));
		return NULL;
	}
	ret = start(pipe_fds[1], &pid);
	close(pipe_fds[1]);
	if (ret) {
		close(pipe_fds[0]);
		*error_out = xasprintf("journalctl: %s", strerror(ret));
		return NULL;
	}
	text = read_all(pipe_fds[0], timeout_ms);
	close(pipe_fds[0]);
	kill(pid, SIGKILL); /* it only reads, and is waited for */
	waitpid(pid, NULL, 0);
	if (*text)
		return text;
	free(text);
	*error_out = xstrdup("the journal has nothing of units peerway-*");
	return NULL;
}
