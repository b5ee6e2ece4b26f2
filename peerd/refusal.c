/* SPDX-License-Identifier: Apache-2.0 */
/* Translates refusals: see refusal.h. Talks to nobody. */
#include "peerd/refusal.h"

#include <stddef.h>
#include <string.h>

#define CODE(name) PEERWAY__IPC__DIAL_CODE__DIAL_##name

static const struct {
	Peerway__Ipc__DialCode code;
	grpc_status_code status;
	const char *word;
	bool may_retry;
} refusals[] = {
	/* A missing tunnel, and an agent that could not connect, are
	 * connection problems to the reference, hence UNAVAILABLE. */
	{CODE(OFFLINE), GRPC_STATUS_UNAVAILABLE, "offline", true},
	{CODE(REFUSED), GRPC_STATUS_UNAVAILABLE, "refused", false},
	{CODE(TIMED_OUT), GRPC_STATUS_UNAVAILABLE, "timed-out", true},
	{CODE(NOT_FOUND), GRPC_STATUS_UNAVAILABLE, "not-found", false},
	{CODE(DENIED), GRPC_STATUS_PERMISSION_DENIED, "denied", false},
	{CODE(INVALID), GRPC_STATUS_INVALID_ARGUMENT, "invalid", false},
	{CODE(INTERNAL), GRPC_STATUS_UNKNOWN, "internal", true},
};

#define COUNT (sizeof(refusals) / sizeof(refusals[0]))

grpc_status_code refusal_status(Peerway__Ipc__DialCode code)
{
	for (size_t i = 0; i < COUNT; i++) {
		if (refusals[i].code == code)
			return refusals[i].status;
	}
	return GRPC_STATUS_UNKNOWN;
}

const char *refusal_word(Peerway__Ipc__DialCode code)
{
	for (size_t i = 0; i < COUNT; i++) {
		if (refusals[i].code == code)
			return refusals[i].word;
	}
	return NULL;
}

Peerway__Ipc__DialCode refusal_code(grpc_status_code status, const char *word)
{
	for (size_t i = 0; word && i < COUNT; i++) {
		if (strcmp(refusals[i].word, word) == 0)
			return refusals[i].code;
	}
	switch (status) {
	case GRPC_STATUS_INVALID_ARGUMENT:
		return CODE(INVALID);
	case GRPC_STATUS_DEADLINE_EXCEEDED:
		return CODE(TIMED_OUT);
	case GRPC_STATUS_NOT_FOUND:
		return CODE(NOT_FOUND);
	case GRPC_STATUS_UNAVAILABLE:
	case GRPC_STATUS_RESOURCE_EXHAUSTED:
	case GRPC_STATUS_CANCELLED:
		return CODE(OFFLINE);
	default:
		/* among them PERMISSION_DENIED: it is our certificate, not the
		 * user, that the peer does not want */
		return CODE(INTERNAL);
	}
}

bool refusal_may_retry(Peerway__Ipc__DialCode code)
{
	for (size_t i = 0; i < COUNT; i++) {
		if (refusals[i].code == code)
			return refusals[i].may_retry;
	}
	return true;
}
