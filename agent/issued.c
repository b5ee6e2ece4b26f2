/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What authd issued, by way of a proxy that could put in what it likes. So the
 * certificate is tied to our key and to a CA that has the pin before it
 * replaces anything.
 */
#include "agent/issued.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/field.h"
#include "shared/identity.h"
#include "shared/pki.h"

/* A PEM text: longer than a field is, and with line ends. */
static char *read_pem(const struct field *top, const char *key)
{
	json_t *value = json_object_get(top->object, key);

	if (!json_is_string(value)) {
		field_fail(top, key, value ? "is not a string" : "is missing");
		return NULL;
	}
	return xstrdup(json_string_value(value));
}

static bool is_issued_by(X509 *leaf, X509 *ca, const char *pin)
{
	bool ok = (!pin || pki_pin_matches(ca, pin)) &&
		  X509_verify(leaf, X509_get0_pubkey(ca)) == 1;

	ERR_clear_error();
	return ok;
}

/* NULL, or what is wrong (static). */
static const char *check(STACK_OF(X509) * chain, STACK_OF(X509) * cas,
	const struct issued_expect *expect)
{
	X509 *leaf = sk_X509_value(chain, 0);
	struct host_identity identity;
	const char *why;

	if (!leaf)
		return "cert_chain: has no certificate";
	if (EVP_PKEY_eq(X509_get0_pubkey(leaf), expect->key) != 1)
		return "cert_chain: is for another key";
	if (identity_of_host(leaf, expect->cluster, &identity, &why) < 0)
		return why;
	if (!(identity.roles & IDENTITY_NODE) ||
		strcmp(identity.uuid, expect->host_uuid) != 0)
		return "cert_chain: is for another host";
	for (int i = 0; i < sk_X509_num(cas); i++)
		if (is_issued_by(leaf, sk_X509_value(cas, i), expect->ca_pin))
			return NULL;
	return "cert_chain: was not issued by a CA in host_ca with our pin";
}

static int check_pem(const struct issued *issued,
	const struct issued_expect *expect, char **error_out)
{
	STACK_OF(X509) *cas = NULL, *chain;
	const char *why = NULL;

	chain = pki_certs_from_pem(
		issued->cert_chain, strlen(issued->cert_chain), error_out);
	if (chain)
		cas = pki_certs_from_pem(
			issued->host_ca, strlen(issued->host_ca), error_out);
	if (cas)
		why = check(chain, cas, expect);
	if (why)
		*error_out = xstrdup(why);
	sk_X509_pop_free(chain, X509_free);
	sk_X509_pop_free(cas, X509_free);
	return cas && !why ? 0 : -1;
}

static struct issued *read_issued(
	const struct field *top, const struct issued_expect *expect)
{
	struct issued *issued = xcalloc(1, sizeof(*issued));
	char cluster[256];

	if (field_text(top, "cluster_name", true, cluster, sizeof(cluster)) ==
			0 &&
		strcmp(cluster, expect->cluster) != 0)
		field_fail(top, "cluster_name", "is another one");
	if (!top->error[0])
		issued->cert_chain = read_pem(top, "cert_chain");
	if (issued->cert_chain)
		issued->host_ca = read_pem(top, "host_ca");
	if (issued->host_ca)
		issued->user_ca = read_pem(top, "user_ca");
	if (!issued->user_ca) {
		issued_free(issued);
		return NULL;
	}
	return issued;
}

struct issued *issued_from_json(const char *text, size_t len,
	const struct issued_expect *expect, char **error_out)
{
	char error[FIELD_ERROR_MAX] = "";
	json_t *document = field_document(text, len, error);
	struct field top = {document, "", error};
	struct issued *issued = document ? read_issued(&top, expect) : NULL;

	json_decref(document);
	if (!issued) {
		*error_out = xstrdup(error);
		return NULL;
	}
	if (check_pem(issued, expect, error_out) < 0) {
		issued_free(issued);
		return NULL;
	}
	return issued;
}

void issued_free(struct issued *issued)
{
	if (!issued)
		return;
	free(issued->cert_chain);
	free(issued->host_ca);
	free(issued->user_ca);
	free(issued);
}
