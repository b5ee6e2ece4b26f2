/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Our one connection to one peer at one address with one certificate; any of
 * them changing makes a new channel. gRPC connects and reconnects by itself.
 *
 *   CONNECTING <--> READY       channel_retire(): no new calls; gone when the
 *        \--> UNREACHABLE <-/   last call on it has ended
 */

#include "peerd/peerd.h"
#include "peerd/tally.h"

enum channel_state { CHANNEL_CONNECTING, CHANNEL_READY, CHANNEL_UNREACHABLE };

struct channel;

/* Starts connecting. Takes a reference of its own to tally. on_state(arg) is
 * called on the loop's thread at every change, until channel_retire(). */
struct channel *channel_new(struct peerd *peerd, const char *peer_id,
	const char *addr, struct tally *tally, void (*on_state)(void *arg),
	void *arg);
/* Gives the channel up. */
void channel_retire(struct channel *channel);

enum channel_state channel_state(const struct channel *channel);
/* loop_now() of the last change. */
int64_t channel_since(const struct channel *channel);
/* Why it could not be used last, and when (Unix ms, 0: never); text of size
 * bytes. */
void channel_last_error(
	struct channel *channel, char *text, size_t size, int64_t *at_out);
void channel_note_error(struct channel *channel, const char *text);
struct peerd *channel_peerd(const struct channel *channel);
const char *channel_peer_id(const struct channel *channel);
/* Its tally's, of bytes and of streams joined, which client.c counts. */
struct stream_totals *channel_totals(struct channel *channel);
void channel_count_stream(struct channel *channel, int change);

/* That hold it now. */
unsigned channel_calls(const struct channel *channel);
/* For client.c: a call holds the channel until it is let go. */
grpc_channel *channel_hold(struct channel *channel);
void channel_let_go(struct channel *channel);

/* Where the remains of channels wait until gRPC has forgotten them. Freed after
 * the completion queue. */
struct channel_yard *channel_yard_new(void);
/* Before the queue is freed: channels that were retired while connecting are
 * not waited for any longer. */
void channel_yard_close(struct channel_yard *yard);
void channel_yard_free(struct channel_yard *yard);
