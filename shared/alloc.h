/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Allocation that cannot fail: for small objects of a size the program itself
 * chose. Out of memory ends the process (the supervisor restarts it). What a
 * peer sizes is bounded first and allocated with plain malloc.
 */

#include <stdarg.h>
#include <stddef.h>

void *xcalloc(size_t count, size_t size);
void *xrealloc(void *ptr, size_t size);
/* NULL gives NULL. */
char *xstrdup(const char *text);
char *xstrndup(const char *text, size_t len);
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));
char *xvasprintf(const char *format, va_list ap);

/* Overwrites secret bytes before their memory is given back; NULL is fine. */
void wipe(void *secret, size_t len);
