/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One transfer in both directions at once, random bytes each way, with the
 * SHA-256 of what was sent and of what came.
 *
 * On the wire: the client's request (24 bytes, little endian: "PUMP", zero,
 * u64 bytes up, u64 bytes down), then up and down at once, then from the
 * server SHA-256 of what it received and of what it sent.
 */

#include "tests/tools/pump_io.h"

#define PUMP_REQUEST_SIZE 24
#define PUMP_DIGEST_SIZE 32

struct pump_request {
	uint64_t up;
	uint64_t down;
};

void pump_request_encode(const struct pump_request *request, uint8_t *bytes);
int pump_request_decode(const uint8_t *bytes, struct pump_request *out);

struct pump_flow {
	uint64_t sent;
	uint64_t received;
	uint8_t sent_digest[PUMP_DIGEST_SIZE];
	uint8_t received_digest[PUMP_DIGEST_SIZE];
};

/* Sends and receives so many bytes. 0, or -errno with the counts so far. */
int pump_flow_run(struct pump_io *io, uint64_t to_send, uint64_t to_receive,
	struct pump_flow *flow);
