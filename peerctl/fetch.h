/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * GET of a daemon's diagnostic address (shared/diag.h), plain HTTP on this
 * host, and the text of a file below /proc. Blocking, with a deadline.
 */

/* The body (gives), and the status; or NULL and *error_out (gives). At most 1
 * MiB. */
char *fetch_diag(const char *addr, const char *path, int timeout_ms,
	int *status_out, char **error_out);
/* The first max bytes of a file, or with from_end the last (gives); NULL and
 * errno. */
char *fetch_file(const char *path, long max, int from_end);
