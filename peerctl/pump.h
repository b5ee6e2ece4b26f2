/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Moves bytes between stdin, stdout and a TLS connection until both directions
 * have ended; an end on one side is carried over to the other alone.
 *
 *   stdin ends      -> close_notify, and go on reading from the connection
 *   close_notify    -> stdout closed, and go on reading stdin
 *   TCP ended too   -> both are over
 */

#include "peerctl/client.h"

/* 0, or -errno when a side broke; in and out stay open unless half-closed. */
int pump_run(struct client *client, int in, int out);
