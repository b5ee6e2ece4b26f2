/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The answer to a join or renewal, as JSON:
 *   {"cert_chain": PEM, "host_ca": PEM, "user_ca": PEM, "cluster_name": text}
 * read and checked. Pure.
 */

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stddef.h>

struct issued {
	char *cert_chain;
	char *host_ca; /* of what was answered, the CAs that may be trusted */
	char *user_ca; /* may be empty */
};

struct issued_expect {
	EVP_PKEY *key;
	const char *cluster;
	const char *host_uuid;
	/* Whom we trust already: a renewal; or the CA with this pin: a join. */
	STACK_OF(X509) * trusted; /* borrowed; NULL: ca_pin */
	const char *ca_pin;
};

/* Gives, or NULL and *error_out (gives). */
struct issued *issued_from_json(const char *text, size_t len,
	const struct issued_expect *expect, char **error_out);
void issued_free(struct issued *issued);
