/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Metrics that are read from this process's descriptors when somebody asks: the
 * connections that peers have made to us, which gRPC's C core does not tell of.
 */

#include <stdint.h>
#include <stdio.h>

/* Connections of peers beyond this have no series of their own. */
#define DESCRIPTORS_SHOWN_MAX 1024

/* Prometheus text. port is the one where peers are listened for; 0: nowhere. */
void descriptors_text(uint16_t port, FILE *out);
