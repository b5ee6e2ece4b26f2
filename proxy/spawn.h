/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Starting this program again as a worker (proxy/inherit.h). */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* fds become descriptors 3, 4, ... of the child, which has no others but 0 to
 * 2. Borrows them. The child's pid, or -errno. */
pid_t spawn_worker(uint32_t number, const int *fds, size_t count);
/* A descriptor that reads the file's bytes as they are now, whatever happens
 * to the file later; gives, or -errno. */
int spawn_keep_file(const char *path);
