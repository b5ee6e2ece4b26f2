/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The few plain requests of 3080: GET /webapi/find for everybody; POST
 * /v1/agent/join and /v1/agent/renew for agents (ALPN peerway-agent), passed on
 * to authd through routed.
 */

#include "shared/ipc_link.h"

struct client;
struct worker;

/* The client's request is complete and its method is not CONNECT. */
void web_serve(struct client *client);

/* What routed answers (routed_link.c). */
ipc_handler web_handle_join_reply;
/* routed has gone: nobody will answer those who wait. */
void web_routed_lost(struct worker *worker);
