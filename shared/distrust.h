/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What to say of a handshake that failed because one side does not trust the
 * other's CA, which is what a host meets that was away while the CAs were
 * rotated. Pure.
 */

enum distrust {
	DISTRUST_NONE,
	DISTRUST_THEIRS, /* we do not know the CA of their certificate */
	DISTRUST_OURS,	 /* they do not know the CA of ours */
	DISTRUST_MAYBE,	 /* they closed instead of beginning: gRPC says no more
			  */
};

/* Of X509_V_*, and of an error's text, OpenSSL's or gRPC's. */
enum distrust distrust_of_verdict(long verdict);
enum distrust distrust_of_text(const char *error);

/* What it means and what to do, for a host's log or status, and for a person at
 * peerctl; static, empty for DISTRUST_NONE, else with ": " in front of it. */
const char *distrust_host_advice(enum distrust distrust);
const char *distrust_user_advice(enum distrust distrust);
