/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the tls*.c files share among themselves. */

#include <openssl/ssl.h>

/* A context with the settings that all have; NULL on failure. */
SSL_CTX *tls_ctx_new(const SSL_METHOD *method);
/* Frees ctx and puts `what: OpenSSL's reason` into *error_out; always NULL. */
SSL_CTX *tls_ctx_failed(SSL_CTX *ctx, const char *what, char **error_out);
