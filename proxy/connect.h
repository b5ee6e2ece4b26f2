/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * CONNECT <target>: who asks, what the target means, whether they may, the
 * dial, and the answer with the route taken. Errors are one line of text:
 * 400 not a target, 401 no certificate, 403 refused, 404 unknown, 409
 * ambiguous, 502 the service refused, 503 offline, 504 timed out.
 */

struct client;

/* The client's request is complete and its method is CONNECT. */
void connect_serve(struct client *client);
