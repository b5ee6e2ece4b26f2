/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Moves the bytes of one transfer. Reading is tried before writing, and both
 * before waiting, so neither direction can starve or block the other.
 */

#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "tests/tools/pump_flow.h"

#define CHUNK (64 * 1024)

struct sender {
	uint64_t left; /* not yet made */
	uint64_t seed;
	size_t at;
	size_t len;
	uint64_t buf[CHUNK / 8];
};

struct transfer {
	struct pump_io *io;
	struct sender out;
	uint64_t to_receive;
	EVP_MD_CTX *sent;
	EVP_MD_CTX *received;
	struct pump_flow *flow;
	uint8_t in[CHUNK];
};

void pump_request_encode(const struct pump_request *request, uint8_t *bytes)
{
	uint64_t up = htole64(request->up), down = htole64(request->down);

	memcpy(bytes, "PUMP\0\0\0\0", 8);
	memcpy(bytes + 8, &up, 8);
	memcpy(bytes + 16, &down, 8);
}

int pump_request_decode(const uint8_t *bytes, struct pump_request *out)
{
	if (memcmp(bytes, "PUMP\0\0\0\0", 8))
		return -EBADMSG;
	memcpy(&out->up, bytes + 8, 8);
	memcpy(&out->down, bytes + 16, 8);
	out->up = le64toh(out->up);
	out->down = le64toh(out->down);
	return 0;
}

/* xorshift64*: nothing on the way can compress or guess it. */
static void sender_fill(struct sender *out)
{
	for (size_t i = 0; i < CHUNK / 8; i++) {
		out->seed ^= out->seed >> 12;
		out->seed ^= out->seed << 25;
		out->seed ^= out->seed >> 27;
		out->buf[i] = out->seed * 0x2545f4914f6cdd1dull;
	}
	out->at = 0;
	out->len = out->left < CHUNK ? (size_t)out->left : CHUNK;
	out->left -= out->len;
}

/* 0 when something was moved, -EAGAIN, or -errno. */
static int transfer_send(struct transfer *t)
{
	struct sender *out = &t->out;
	const uint8_t *bytes = (const uint8_t *)out->buf;
	ssize_t n;

	if (out->at == out->len)
		sender_fill(out);
	n = pump_io_write(t->io, bytes + out->at, out->len - out->at);
	if (n < 0)
		return (int)n;
	EVP_DigestUpdate(t->sent, bytes + out->at, (size_t)n);
	out->at += (size_t)n;
	t->flow->sent += (uint64_t)n;
	return 0;
}

static int transfer_receive(struct transfer *t)
{
	uint64_t left = t->to_receive - t->flow->received;
	ssize_t n;

	n = pump_io_read(t->io, t->in, left < CHUNK ? (size_t)left : CHUNK);
	if (n == 0)
		return -EPIPE;
	if (n < 0)
		return (int)n;
	EVP_DigestUpdate(t->received, t->in, (size_t)n);
	t->flow->received += (uint64_t)n;
	return 0;
}

static int transfer_run(struct transfer *t)
{
	for (;;) {
		bool sending = t->out.left || t->out.at < t->out.len;
		bool receiving = t->flow->received < t->to_receive;
		short wants = 0;
		int got = -EAGAIN, put = -EAGAIN;

		if (!sending && !receiving)
			return 0;
		if (receiving) {
			got = transfer_receive(t);
			wants |= t->io->wants;
		}
		if (sending) {
			put = transfer_send(t);
			wants |= t->io->wants;
		}
		if (got && got != -EAGAIN)
			return got;
		if (put && put != -EAGAIN)
			return put;
		if (got && put && (got = pump_io_wait(t->io, wants)))
			return got;
	}
}

int pump_flow_run(struct pump_io *io, uint64_t to_send, uint64_t to_receive,
	struct pump_flow *flow)
{
	struct transfer *t = calloc(1, sizeof(*t));
	int ret;

	memset(flow, 0, sizeof(*flow));
	if (!t)
		return -ENOMEM;
	t->io = io;
	t->flow = flow;
	t->to_receive = to_receive;
	t->out.left = to_send;
	if (getrandom(&t->out.seed, sizeof(t->out.seed), 0) < 0)
		t->out.seed = (uint64_t)pump_now_ms();
	t->out.seed |= 1; /* zero would stay zero */
	t->sent = EVP_MD_CTX_new();
	t->received = EVP_MD_CTX_new();
	EVP_DigestInit_ex(t->sent, EVP_sha256(), NULL);
	EVP_DigestInit_ex(t->received, EVP_sha256(), NULL);
	ret = transfer_run(t);
	EVP_DigestFinal_ex(t->sent, flow->sent_digest, NULL);
	EVP_DigestFinal_ex(t->received, flow->received_digest, NULL);
	EVP_MD_CTX_free(t->sent);
	EVP_MD_CTX_free(t->received);
	free(t);
	return ret;
}
