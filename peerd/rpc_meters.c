/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What calls between proxies come to: see rpc_meters.h. Owns nothing.
 *
 * A newcomer's trap: rpc_total is no counter of its own but the count of the
 * durations of that code, so the two cannot disagree.
 */
#include "peerd/rpc_meters.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <time.h>

#define SERVICE "proto.ProxyService"

/* The reference's: 32 x 2^k, 12 of them. */
static const struct histogram_shape sizes = {32, 1, 12, 1};
/* 1 ms to 70 minutes: a ping as well as a session. */
static const struct histogram_shape times = {1000, 2, 12, 1e-6};

static const char *const side_names[RPC_SIDES] = {
	[RPC_CLIENT] = "client",
	[RPC_SERVER] = "server",
};

static const char *const kind_names[RPC_KINDS] = {
	[RPC_DIAL] = "DialNode",
	[RPC_PING] = "Ping",
};

/* As the reference's gRPC library spells them. */
static const char *const code_names[RPC_CODES] = {"OK", "Canceled", "Unknown",
	"InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists",
	"PermissionDenied", "ResourceExhausted", "FailedPrecondition",
	"Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable",
	"DataLoss", "Unauthenticated"};

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

struct rpc_meter *rpc_meter(
	struct rpc_meters *meters, enum rpc_side side, enum rpc_kind kind)
{
	return &meters->meters[side][kind];
}

void rpc_meter_sent(struct rpc_meter *meter, size_t len)
{
	histogram_add(&meter->sent, &sizes, len);
}

void rpc_meter_received(struct rpc_meter *meter, size_t len)
{
	histogram_add(&meter->received, &sizes, len);
}

void rpc_span_start(struct rpc_span *span, struct rpc_meter *meter)
{
	span->meter = meter;
	span->started_us = now_us();
	atomic_fetch_add(&meter->running, 1);
}

void rpc_span_end(struct rpc_span *span, grpc_status_code status)
{
	struct rpc_meter *meter = span->meter;

	if (!span->started_us)
		return;
	if (status < 0 || status >= RPC_CODES)
		status = GRPC_STATUS_UNKNOWN;
	atomic_fetch_sub(&meter->running, 1);
	histogram_add(&meter->seconds[status], &times,
		(uint64_t)(now_us() - span->started_us));
	span->started_us = 0;
}

/* ---- the text ---- */

struct text {
	FILE *out;
	const char *name;
};

static void put_running(const struct text *text, const struct rpc_meter *meter,
	const char *labels)
{
	fprintf(text->out, "%s{%s} %" PRId64 "\n", text->name, labels,
		atomic_load(&meter->running));
}

static void put_each_code(const struct text *text,
	const struct rpc_meter *meter, const char *labels,
	void (*put)(const struct text *text, const struct histogram *seconds,
		const char *labels))
{
	char with_code[160];

	for (int code = 0; code < RPC_CODES; code++) {
		const struct histogram *seconds = &meter->seconds[code];

		if (code != GRPC_STATUS_OK && histogram_count(seconds) == 0)
			continue;
		snprintf(with_code, sizeof(with_code), "%s,code=\"%s\"", labels,
			code_names[code]);
		put(text, seconds, with_code);
	}
}

static void put_count(const struct text *text, const struct histogram *seconds,
	const char *labels)
{
	fprintf(text->out, "%s{%s} %" PRIu64 "\n", text->name, labels,
		histogram_count(seconds));
}

static void put_total(const struct text *text, const struct rpc_meter *meter,
	const char *labels)
{
	put_each_code(text, meter, labels, put_count);
}

static void put_histogram(const struct text *text,
	const struct histogram *seconds, const char *labels)
{
	histogram_text(text->out, seconds, &times, text->name, labels);
}

static void put_seconds(const struct text *text, const struct rpc_meter *meter,
	const char *labels)
{
	put_each_code(text, meter, labels, put_histogram);
}

static void put_sent(const struct text *text, const struct rpc_meter *meter,
	const char *labels)
{
	histogram_text(text->out, &meter->sent, &sizes, text->name, labels);
}

static void put_received(const struct text *text, const struct rpc_meter *meter,
	const char *labels)
{
	histogram_text(text->out, &meter->received, &sizes, text->name, labels);
}

static const struct family {
	const char *name; /* after proxy_peer_client_ or proxy_peer_server_ */
	const char *type;
	const char *help;
	const char *method;
	void (*put)(const struct text *text, const struct rpc_meter *meter,
		const char *labels);
} families[] = {
	{"rpc", "gauge", "calls between proxies under way", "method",
		put_running},
	{"rpc_total", "counter", "calls that have ended, by their status",
		"method", put_total},
	{"rpc_duration_seconds", "histogram",
		"how long calls took; of DialNode with its stream", "handler",
		put_seconds},
	{"message_sent_size", "histogram", "bytes of each message sent",
		"handler", put_sent},
	{"message_received_size", "histogram", "bytes of each message received",
		"handler", put_received},
};

static void put_family(const struct rpc_meters *meters, FILE *out,
	enum rpc_side side, const struct family *family)
{
	char name[80], labels[120];
	struct text text = {out, name};

	snprintf(name, sizeof(name), "proxy_peer_%s_%s", side_names[side],
		family->name);
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, family->help, name,
		family->type);
	for (int kind = 0; kind < RPC_KINDS; kind++) {
		snprintf(labels, sizeof(labels),
			"service=\"" SERVICE "\",%s=\"%s\"", family->method,
			kind_names[kind]);
		family->put(&text, &meters->meters[side][kind], labels);
	}
}

void rpc_meters_text(const struct rpc_meters *meters, FILE *out)
{
	for (int side = 0; side < RPC_SIDES; side++) {
		for (size_t i = 0; i < sizeof(families) / sizeof(families[0]);
			i++)
			put_family(meters, out, side, &families[i]);
	}
}
