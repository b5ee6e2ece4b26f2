/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * peerctl's questions that a peer has to answer: whether it is there (ping),
 * and what its own verbs say (ask). Each ends within 5 s.
 */

#include "peerd/peerd.h"
#include "shared/ctl.h"

/* Under way at once; further ones are refused. */
#define INQUIRIES_MAX 64

struct inquiries;

struct inquiries *inquiries_new(struct peerd *peerd);
/* Fails what is under way; while the links of those who asked are there. */
void inquiries_free(struct inquiries *inquiries);

/* Each takes the call and answers it. peer is what peers_named() takes; args
 * may be NULL. */
void inquiries_ping(
	struct inquiries *inquiries, struct ctl_call *call, const char *peer);
void inquiries_ask(struct inquiries *inquiries, struct ctl_call *call,
	const char *peer, const char *verb, const json_t *args);
