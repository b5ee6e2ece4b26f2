/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Closes a TCP socket whose last bytes are still on their way. A socket closed
 * with unread input makes the kernel send RST, which can overtake and destroy
 * what the client has not read yet; so its input is read and thrown away until
 * the client closes, or for PARTING_MS.
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
