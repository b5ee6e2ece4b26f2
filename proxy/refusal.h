/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Agents for whom there is no room, told so before any TLS: one plain answer
 * that says when to come back (docs/protocol.md), then an orderly end.
 */

struct loop;
struct refusals;

struct refusals *refusals_new(struct loop *loop);
/* Closes what is left; NULL is fine. */
void refusals_free(struct refusals *refusals);
/* Takes fd, a TCP connection on which nothing was sent. */
void refusals_add(struct refusals *refusals, int fd, unsigned retry_after_s);
