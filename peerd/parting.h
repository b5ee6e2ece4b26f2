/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Says the end to a socket whose last bytes may still be on their way, and
 * closes it when its other end has ended too, or after PARTING_MS; what still
 * comes is read and thrown away. A TCP socket closed with unread input makes
 * the kernel send RST, which can destroy what the client has not read yet; one
 * end of a pair that is closed early is a torn stream (sock_pair()).
 */

#include "shared/loop.h"

#define PARTING_MS 5000
/* So many at once; further ones are closed at once. */
#define PARTING_MAX 1024

struct partings;

struct partings *partings_new(struct loop *loop);
/* Closes all. */
void partings_free(struct partings *partings);
/* Takes fd. */
void partings_close(struct partings *partings, int fd);
