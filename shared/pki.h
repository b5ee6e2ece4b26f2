/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Keys (ECDSA P-256), signing requests, certificates: what authd issues and
 * what routed, agent and peerctl ask for. All errors: NULL or -errno, with the
 * OpenSSL queue put into *error_out (gives, to free()).
 */

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stdint.h>

EVP_PKEY *pki_key_new(void);
/* PEM, PKCS#8. Gives; wipe() and free(). */
char *pki_key_to_pem(EVP_PKEY *key);
EVP_PKEY *pki_key_from_pem(const char *pem, size_t len, char **error_out);

/* A signing request in DER for key; its subject is ignored by authd. Gives. */
uint8_t *pki_csr_make(EVP_PKEY *key, size_t *len_out);
/* The verified public key of a request; gives, or NULL. */
EVP_PKEY *pki_csr_key(const uint8_t *der, size_t len, char **error_out);

/* "sha256:<hex of the SHA-256 of the SubjectPublicKeyInfo>"; size >= 72. */
void pki_spki_pin(EVP_PKEY *key, char *out, size_t size);
/* Whether cert's key has this pin. */
bool pki_pin_matches(X509 *cert, const char *pin);

X509 *pki_ca_make(EVP_PKEY *key, const char *common_name, int64_t days);
/* A certificate for ca's name and key that the other CA of the same name has
 * signed: who trusts only that one accepts what ca issues. Being self-issued
 * (RFC 5280 6.1) it does not count against pathlen:0. not_after: Unix seconds;
 * as long as it lasts, ca cannot be withdrawn from who trusts the other. */
X509 *pki_ca_cross(
	X509 *ca, X509 *other, EVP_PKEY *other_key, int64_t not_after);

struct pki_template {
	const char *common_name;
	const char *const *organizations; /* NULL-ended */
	const char *const *dns_names;	  /* NULL-ended; may be NULL */
	const char *const *ip_addresses;  /* NULL-ended; may be NULL */
	const char *uri;		  /* may be NULL */
	bool server;			  /* serverAuth besides clientAuth */
	int64_t not_before;		  /* Unix seconds */
	int64_t not_after;
};
X509 *pki_issue(const struct pki_template *template, EVP_PKEY *subject_key,
	X509 *ca, EVP_PKEY *ca_key, char **error_out);

/* PEM of one certificate, of all in their order; gives. */
char *pki_cert_to_pem(X509 *cert);
char *pki_certs_to_pem(STACK_OF(X509) * certs);
/* All certificates of a PEM text; gives a stack (sk_X509_pop_free). */
STACK_OF(X509) *
	pki_certs_from_pem(const char *pem, size_t len, char **error_out);
