/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The Frame of proto/peer.proto as bytes: written and read without copying the
 * payload, since every byte between two proxies passes through here. Pure.
 *
 *   Data:  1a <varint: length of Data>  0a <varint: length of Bytes>  Bytes...
 *
 * The reference sends Data of at most 16 KiB and never an empty one (its reader
 * takes that for an error), and so do we; between peers that announced frame64k
 * it is at most 64 KiB. Received frames may be as large as gRPC lets through
 * and lie in any number of pieces.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define FRAME_DATA_MAX 16384
#define FRAME_DATA_64K 65536
/* gRPC's limit for one received message: 4 MiB of Bytes and their header. */
#define FRAME_RECEIVE_MAX ((4 << 20) + 64)
#define FRAME_HEADER_MAX 12
/* A whole Eof or Credit. */
#define FRAME_CONTROL_MAX 20

enum frame_kind {
	FRAME_NONE, /* no variant, or one we do not know */
	FRAME_DIAL_REQUEST,
	FRAME_ESTABLISHED,
	FRAME_DATA,
	FRAME_EOF,
	FRAME_CREDIT,
	FRAME_MALFORMED,
};

/* Where the payload lies, counted over all pieces: Bytes of FRAME_DATA, else
 * the variant's message. */
struct frame {
	enum frame_kind kind;
	size_t offset;
	size_t len;
	uint64_t credit; /* FRAME_CREDIT: Bytes */
	bool blocked;	 /* FRAME_CREDIT: Blocked */
};

/* What goes before len (1 to FRAME_DATA_64K) bytes of payload; its length. */
size_t frame_data_header(uint8_t out[FRAME_HEADER_MAX], size_t len);
/* Whole frames; their length. */
size_t frame_eof(uint8_t out[FRAME_CONTROL_MAX]);
size_t frame_credit(
	uint8_t out[FRAME_CONTROL_MAX], uint64_t bytes, bool blocked);

/* Reads one message in count pieces, borrowed. */
struct frame frame_parse(const struct iovec *pieces, size_t count);
