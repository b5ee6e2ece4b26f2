/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Memory of nghttp2 sessions. Of the 25 KiB that an idle session takes from
 * malloc it touches less than 3: the outbound frame buffer is empty between
 * frames, the stream map before the first stream, the HPACK rings always (our
 * tables have size 0). Blocks of these sizes come from slots of one large
 * mapping whose untouched pages cost nothing; all else from malloc.
 *
 * The sizes are those of nghttp2 1.52. Another version merely finds fewer of
 * its blocks in slots; a unit test tells.
 */

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>

struct tunnel_mem;

/* Slots of each size; what exceeds them comes from malloc. NULL when the
 * system refuses the address space: pass that on, all comes from malloc. */
struct tunnel_mem *tunnel_mem_new(unsigned slots);
/* All sessions must be gone. */
void tunnel_mem_free(struct tunnel_mem *mem);
/* Slots in use, all sizes. */
size_t tunnel_mem_used(const struct tunnel_mem *mem);

/* One per session, zeroed but for mem. */
struct tunnel_mem_user {
	struct tunnel_mem *mem;
	void *frames[2]; /* its frame buffers; two while one is replaced */
};

/* For nghttp2_session_*_new3(), which copies it. Borrows user for the life of
 * the session. */
nghttp2_mem tunnel_mem_functions(struct tunnel_mem_user *user);

/* Gives the frame buffers' pages back. Only between frames: mem_send has
 * returned 0 and no pointer from it is in use. */
void tunnel_mem_trim(struct tunnel_mem_user *user);
