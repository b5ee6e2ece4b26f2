/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * tcp_listeners: plain TCP ports with a fixed target. Nobody reads from an
 * accepted socket before it is joined, so it can travel:
 *
 *   allow_from? -> target? -> tunnel here: joined to a stream of it
 *                          -> elsewhere: the socket itself goes to peerd
 *
 * and what went to peerd outlives this process.
 */

struct conf_tcp_listener;
struct worker;

/* Takes fd, a listening socket; borrows conf. */
void tcp_listener_start(
	struct worker *worker, int fd, const struct conf_tcp_listener *conf);
/* Ends sessions that are still joined here, at the end of a worker. */
void tcp_listener_drop_sessions(struct worker *worker);
