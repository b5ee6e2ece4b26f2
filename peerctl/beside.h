/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A file that grows under another name beside its own and gets that when it is
 * whole and on the disk. Mode 0600. One at a time: a signal that ends the
 * process removes it.
 */

#include <stdbool.h>

struct beside {
	const char *path; /* borrowed */
	char *temporary;  /* NULL: none */
	int fd;		  /* for writing */
};

/* 0 or -errno. */
int beside_open(struct beside *beside, const char *path);
/* Written and in place; -EEXIST when there is one and it is not to be
 * replaced. 0 or -errno; then it is still to be dropped. */
int beside_place(struct beside *beside, bool replace);
/* Removes it unless it is in place. */
void beside_drop(struct beside *beside);
