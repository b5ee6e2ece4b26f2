/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What every daemon says of its own process, under the names that Prometheus's
 * client libraries use: descriptors, memory, CPU time, start; and the version.
 */

/* Prometheus text; gives, to free(). */
char *process_metrics_text(void);
/* Descriptors that are open; costly with many. 0: it cannot be told. */
unsigned process_open_fds(void);
