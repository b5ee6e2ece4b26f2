/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The newest lines of Peerway's units in the journal, by journalctl(1); gives,
 * or NULL and *error_out (gives). Waits so long at most. */
char *journal_read(int timeout_ms, char **error_out);
