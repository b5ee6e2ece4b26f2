/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What authd issued, by way of a proxy that could put in what it likes. So the
 * certificate is tied to our key and to a CA that has the pin, or that one we
 * trust vouches for, before it replaces anything.
 */
#include "agent/issued.h"

#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/bundle.h"
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

/* NULL, or what is wrong (static) with whom it is for. */
static const char *check_leaf(X509 *leaf, const struct issued_expect *expect)
{
	struct host_identity identity;
	const char *why;

	if (EVP_PKEY_eq(X509_get0_pubkey(leaf), expect->key) != 1)
		return "cert_chain: is for another key";
	if (identity_of_host(leaf, expect->cluster, &identity, &why) < 0)
		return why;
	if (!(identity.roles & IDENTITY_NODE) ||
		strcmp(identity.uuid, expect->host_uuid) != 0)
		return "cert_chain: is for another host";
	return NULL;
}

/* The CAs with the pin; gives a stack that owns nothing. */
static STACK_OF(X509) * with_pin(STACK_OF(X509) * cas, const char *pin)
{
	STACK_OF(X509) *found = sk_X509_new_null();

	for (int i = 0; i < sk_X509_num(cas); i++)
		if (pki_pin_matches(sk_X509_value(cas, i), pin) &&
			X509_self_signed(sk_X509_value(cas, i), 1) == 1)
			sk_X509_push(found, sk_X509_value(cas, i));
	return found;
}

/* Of what was answered, CAs and what leads to them: the CAs that may be
 * trusted; NULL when the leaf leads to none of them, and then *why_out. */
static STACK_OF(X509) * accept_cas(STACK_OF(X509) * chain, STACK_OF(X509) * cas,
				STACK_OF(X509) * trusted, const char **why_out)
{
	STACK_OF(X509) *offered = sk_X509_dup(cas);
	STACK_OF(X509) * accepted;
	X509 *leaf = sk_X509_value(chain, 0);

	for (int i = 1; i < sk_X509_num(chain); i++)
		sk_X509_push(offered, sk_X509_value(chain, i));
	accepted = bundle_accept(trusted, offered);
	sk_X509_free(offered);
	for (int i = sk_X509_num(accepted) - 1; i >= 0; i--)
		if (!bundle_contains(cas, sk_X509_value(accepted, i)))
			X509_free(sk_X509_delete(accepted, i));
	if (bundle_verifies(leaf, accepted, chain, true))
		return accepted;
	*why_out = "cert_chain: was not issued by a CA in host_ca with our pin";
	sk_X509_pop_free(accepted, X509_free);
	return NULL;
}

/* NULL, or what is wrong (static); else replaces host_ca by what of it may be
 * trusted. */
static const char *check(struct issued *issued, STACK_OF(X509) * chain,
	STACK_OF(X509) * cas, const struct issued_expect *expect)
{
	const char *why = check_leaf(sk_X509_value(chain, 0), expect);
	STACK_OF(X509) *pinned = NULL, *accepted;

	if (why)
		return why;
	if (!expect->trusted)
		pinned = with_pin(cas, expect->ca_pin);
	accepted =
		accept_cas(chain, cas, pinned ? pinned : expect->trusted, &why);
	sk_X509_free(pinned);
	if (!accepted)
		return why;
	free(issued->host_ca);
	issued->host_ca = pki_certs_to_pem(accepted);
	sk_X509_pop_free(accepted, X509_free);
	return NULL;
}

static int check_pem(struct issued *issued, const struct issued_expect *expect,
	char **error_out)
{
	STACK_OF(X509) *cas = NULL, *chain;
	const char *why = NULL;

	chain = pki_certs_from_pem(
		issued->cert_chain, strlen(issued->cert_chain), error_out);
	if (chain)
		cas = pki_certs_from_pem(
			issued->host_ca, strlen(issued->host_ca), error_out);
	if (cas)
		why = check(issued, chain, cas, expect);
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
