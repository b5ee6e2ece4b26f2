/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Test help: a host CA made on the spot, and what it issues.
 */

#include <assert.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "shared/alloc.h"
#include "shared/identity.h"
#include "shared/pki.h"
#include "shared/tls.h"

#define CLUSTER "example"

struct ca {
	EVP_PKEY *key;
	X509 *cert;
};

static inline struct ca ca_make(void)
{
	struct ca ca = {.key = pki_key_new()};

	ca.cert = pki_ca_make(ca.key, "host CA", 10);
	return ca;
}

static inline void ca_free(struct ca *ca)
{
	X509_free(ca->cert);
	EVP_PKEY_free(ca->key);
}

/* A host certificate of CLUSTER, good from now + from to now + to seconds. */
static inline X509 *ca_issue(struct ca *ca, EVP_PKEY *key, const char *role,
	const char *uuid, int from, int to)
{
	const char *const roles[] = {role, NULL};
	char name[IDENTITY_SERVER_NAME_MAX];
	const char *const dns[] = {name, NULL};
	char *cn = xasprintf("%s.%s", uuid, CLUSTER);
	struct pki_template template = {.common_name = cn,
		.organizations = roles,
		.dns_names = dns,
		.server = true,
		.not_before = time(NULL) + from,
		.not_after = time(NULL) + to};
	char *error = NULL;
	X509 *cert;

	identity_server_name(CLUSTER, name);
	cert = pki_issue(&template, key, ca->cert, ca->key, &error);
	assert(cert);
	free(cn);
	return cert;
}

static inline struct tls_identity *ca_identity(
	struct ca *ca, const char *role, const char *uuid)
{
	EVP_PKEY *key = pki_key_new();
	X509 *cert = ca_issue(ca, key, role, uuid, -60, 3600);
	char *cert_pem = pki_cert_to_pem(cert);
	char *key_pem = pki_key_to_pem(key);
	char *ca_pem = pki_cert_to_pem(ca->cert);
	char *error = NULL;
	struct tls_identity *identity =
		tls_identity_from_pem(cert_pem, key_pem, ca_pem, NULL, &error);

	assert(identity);
	free(cert_pem);
	free(key_pem);
	free(ca_pem);
	X509_free(cert);
	EVP_PKEY_free(key);
	return identity;
}
