/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Addresses looked up, connected to and shaken hands with, all at once and
 * within one time: a thread each, since name resolution blocks. Who has not
 * come back by then is left alone, and is an error.
 */

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

struct probe {
	/* asked; all borrowed */
	const char *addr; /* "host" or "host:port" */
	uint16_t port;	  /* when addr has none */
	bool lookup_only;
	SSL_CTX *ctx;	  /* NULL: TCP alone */
	const char *name; /* expected in the certificate, and SNI */
	const char *alpn; /* NULL: none */

	/* found */
	char *error;	/* NULL: all went well; one line */
	char *resolved; /* "192.0.2.1, 192.0.2.2"; NULL: not */
	unsigned count; /* of resolved */
	double ms;	/* until all was done */
	X509 *leaf;	/* of the other side; NULL: no TLS */
};

void probe_run(struct probe *probes, unsigned count, int timeout_ms);
/* Frees what was found. */
void probe_deinit(struct probe *probe);
