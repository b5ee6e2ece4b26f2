/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Descriptors that a worker finds open when its parent has started it as
 * `proxy --worker N -c INHERIT_CONF_PATH`. All else is closed on exec.
 */

#define INHERIT_LINK 3	  /* socketpair to the parent, proto/ipc.h */
#define INHERIT_METRICS 4 /* memory of every worker's metrics */
#define INHERIT_CONF 5	  /* the parent's configuration file, as it read it */
#define INHERIT_CONF_PATH "/proc/self/fd/5"
/* This worker's own sockets, in this order; tcp_listeners as configured. */
#define INHERIT_CLIENTS 6 /* listen_addr */
#define INHERIT_TUNNELS 7 /* tunnel_listen_addr */
#define INHERIT_TCP 8	  /* tcp_listeners[0], ... */
