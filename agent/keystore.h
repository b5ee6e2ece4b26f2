/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The agent's identity on disk, data_dir/agent/: key.pem (made once, mode
 * 0600), host_ca.pem, user_ca.pem, cert.pem. Each file appears whole (written
 * beside, synced, renamed), and cert.pem is the last of a join, so a directory
 * with cert.pem is complete; renewal replaces cert.pem and the CAs, never the
 * key.
 */

#include <openssl/evp.h>
#include <stdbool.h>

#include "shared/tls.h"

/* Makes directory (0700) and its parents' last step; the key there, or a new
 * one written there. Gives, or NULL and *error_out (gives). */
EVP_PKEY *keystore_key(const char *directory, char **error_out);

bool keystore_has_certificate(const char *directory);

/* What authd issued, in PEM. 0, or -errno and *error_out (gives). */
/* The CAs alone, which must be good for the certificate that is there. */
int keystore_save_cas(
	const char *directory, const char *host_ca, char **error_out);
int keystore_save(const char *directory, const char *cert_chain,
	const char *host_ca, const char *user_ca, char **error_out);
