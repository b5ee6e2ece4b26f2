/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a peerd process is doing as a whole.
 *
 *   STARTING --certificate and strategy known--> SERVING
 *       \                                           |
 *        \--SIGTERM--> DRAINING <------SIGTERM-----/
 *                         | last worker and stream gone, drain_timeout,
 *                         | or a second signal
 *                         v
 *                      STOPPING --all calls ended--> STOPPED
 *
 * In strategy agent_mesh SERVING does not listen. The strategy is that of the
 * cache when routed has decided on it, or of the one on disk when authd is
 * away; a change needs a restart, as everywhere.
 */

#include "peerd/peerd.h"

struct lifecycle;

/* Sets signal handlers and links to routed. */
struct lifecycle *lifecycle_new(struct peerd *peerd);
void lifecycle_free(struct lifecycle *lifecycle);

/* NULL when not listening. */
const char *lifecycle_listening(const struct lifecycle *lifecycle);
bool lifecycle_is_draining(const struct lifecycle *lifecycle);
/* For /readyz: one line for each thing that is missing, or NULL. Gives. */
char *lifecycle_missing(void *arg);
