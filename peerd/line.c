/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to a peer under the eye of its pings: see line.h. Owns the
 * channel, the ping under way and the timer of the next one.
 *
 * A newcomer's trap: only a connection that is there proves a silent peer
 * alive. gRPC gives the old one up in the middle of the silence and tries
 * again, which is no news.
 */
#include "peerd/line.h"

#include <stdlib.h>

#include "peerd/meters.h"
#include "peerd/ping.h"
#include "shared/alloc.h"
#include "shared/log.h"
#include "shared/sock.h"

struct line {
	struct peerd *peerd;
	char addr[SOCK_ADDR_MAX];
	struct channel *channel;
	struct health health;
	struct unary *ping; /* under way */
	struct timer *due;  /* the next one */
	void (*on_change)(void *arg);
	void *arg;
};

enum line_state line_state(const struct line *line)
{
	enum channel_state channel = channel_state(line->channel);

	if (channel == CHANNEL_UNREACHABLE ||
		line->health.verdict == HEALTH_SILENT)
		return LINE_UNREACHABLE;
	if (channel == CHANNEL_CONNECTING)
		return LINE_CONNECTING;
	return line->health.verdict == HEALTH_DEGRADED ? LINE_DEGRADED
						       : LINE_READY;
}

const char *line_state_name(enum line_state state)
{
	static const char *const names[] = {
		[LINE_READY] = "ready",
		[LINE_DEGRADED] = "degraded",
		[LINE_CONNECTING] = "connecting",
		[LINE_UNREACHABLE] = "unreachable",
	};

	return names[state];
}

/* ---- pings ---- */

static enum health_result result_of(grpc_status_code status)
{
	switch (status) {
	case GRPC_STATUS_OK:
	case GRPC_STATUS_UNIMPLEMENTED: /* a peer from before there were pings
					 */
		return HEALTH_ANSWERED;
	case GRPC_STATUS_UNAVAILABLE:
	case GRPC_STATUS_DEADLINE_EXCEEDED:
		return HEALTH_MISSED;
	default:
		return HEALTH_ERROR;
	}
}

static void log_verdict(const struct line *line, const char *text)
{
	const char *peer_id = channel_peer_id(line->channel);

	if (line->health.verdict == HEALTH_GOOD)
		log_info("peer answers: peer=%s addr=%s latency_us=%lld",
			peer_id, line->addr,
			(long long)line->health.latency_us);
	else if (line->health.verdict == HEALTH_DEGRADED)
		log_warn("peer degraded: %s peer=%s addr=%s last_us=%lld", text,
			peer_id, line->addr, (long long)line->health.last_us);
	else
		log_warn("peer unreachable: %s peer=%s addr=%s", text, peer_id,
			line->addr);
}

static void on_pong(void *arg, const struct unary_answer *answer)
{
	struct line *line = arg;
	enum health_result result = result_of(answer->status);
	const char *text = answer->text;

	line->ping = NULL;
	if (result == HEALTH_ANSWERED)
		text = "slow answer to a ping";
	else if (answer->status == GRPC_STATUS_DEADLINE_EXCEEDED)
		text = "no answer to a ping within 5 s";
	if (result != HEALTH_ANSWERED)
		channel_note_error(line->channel, text);
	if (health_note(&line->health, result, answer->us))
		log_verdict(line, text);
	timer_set(line->due, health_pause(&line->health, (uint32_t)random()));
	line->on_change(line->arg);
}

static void on_due(void *arg)
{
	struct line *line = arg;

	if (!line->ping)
		line->ping = ping_start(line->channel, on_pong, line);
}

/* ---- life ---- */

/* Pinged at once: a new connection, or one that has failed, to learn why. */
static void on_state(void *arg)
{
	struct line *line = arg;

	if (channel_state(line->channel) == CHANNEL_READY)
		health_forget(&line->health);
	else if (channel_state(line->channel) == CHANNEL_UNREACHABLE)
		metric_add(&line->peerd->metrics, METER_ERROR_DIAL, 1);
	if (line_state(line) != LINE_UNREACHABLE)
		log_info("peer %s: peer=%s addr=%s",
			line_state_name(line_state(line)),
			channel_peer_id(line->channel), line->addr);
	unary_cancel(line->ping);
	line->ping = NULL;
	timer_set(line->due, 0);
	line->on_change(line->arg);
}

struct line *line_new(struct peerd *peerd, const char *peer_id,
	const char *addr, struct tally *tally, void (*on_change)(void *arg),
	void *arg)
{
	struct line *line = xcalloc(1, sizeof(*line));

	line->peerd = peerd;
	snprintf(line->addr, sizeof(line->addr), "%s", addr);
	line->on_change = on_change;
	line->arg = arg;
	line->due = timer_new(peerd->loop, on_due, line);
	line->channel =
		channel_new(peerd, peer_id, addr, tally, on_state, line);
	return line;
}

void line_close(struct line *line)
{
	if (!line)
		return;
	unary_cancel(line->ping);
	timer_free(line->due);
	channel_retire(line->channel);
	loop_free_later(line->peerd->loop, free, line);
}

const struct health *line_health(const struct line *line)
{
	return &line->health;
}

struct channel *line_channel(const struct line *line)
{
	return line->channel;
}
