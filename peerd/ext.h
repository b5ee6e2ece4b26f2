/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What two peers can do for a stream beyond the reference's protocol. The
 * caller lists what it knows in the call's metadata EXT_KEY, the callee answers
 * in its initial metadata with what it knows of that list, and this is in force
 * from the first Data on. Who announces nothing gets the reference's protocol.
 * Pure.
 */

#include <stddef.h>
#include <stdint.h>

#define EXT_KEY "peerway-ext"
/* With EXT_CREDIT, on both sides: bytes of Data that may come before any
 * Credit, in decimal. */
#define EXT_CREDIT_KEY "peerway-credit"

enum ext {
	EXT_EOF = 1 << 0,      /* Eof ends one direction */
	EXT_CREDIT = 1 << 1,   /* Data only as far as Credit allows */
	EXT_FRAME64K = 1 << 2, /* Data of up to 64 KiB */
	EXT_REASON = 1 << 3,   /* refusals carry the trailer peerway-reason */
	EXT_TRACE = 1 << 4,    /* answers carry the metadata peerway-trace */
	EXT_ALL = (1 << 5) - 1,
};

/* Room for all names and the NUL. */
#define EXT_TEXT_MAX 64

/* Names separated by commas, blanks allowed; unknown ones are skipped. */
unsigned ext_parse(const char *text, size_t len);
/* The length; nothing but a NUL for an empty set. */
size_t ext_format(unsigned set, char out[EXT_TEXT_MAX]);

/* A decimal number of at most max; 0 for anything else. */
uint64_t ext_parse_credit(const char *text, size_t len, uint64_t max);
