/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes certificates: the CA's own and those it signs. Decides nothing about
 * who may have one (auth/issue.c does). What a newcomer gets wrong: OpenSSL
 * enforces the 64 characters X.520 allows for a CN when it is given a string
 * type to choose, and `<uuid>.<cluster>` may be longer; the type is therefore
 * fixed to UTF8String, which every verifier of ours reads at any length.
 */
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#include "shared/alloc.h"
#include "shared/pki.h"
#include "shared/tls.h"

/* Hosts whose clock is a little behind must accept a CA made just now. */
#define CA_BACKDATE_S 3600

static bool set_serial(X509 *cert)
{
	BIGNUM *n = BN_new();
	bool ok = n && BN_rand(n, 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) &&
		  BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert));

	BN_free(n);
	return ok;
}

static bool set_times(X509 *cert, int64_t not_before, int64_t not_after)
{
	return ASN1_TIME_set(X509_getm_notBefore(cert), not_before) &&
	       ASN1_TIME_set(X509_getm_notAfter(cert), not_after);
}

static bool add_entry(X509_NAME *name, int nid, const char *text)
{
	return text[0] &&
	       X509_NAME_add_entry_by_NID(name, nid, V_ASN1_UTF8STRING,
		       (const unsigned char *)text, -1, -1, 0);
}

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *extension;
	bool ok;

	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	ok = extension && X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
	return ok;
}

/* Adds one name; takes value, of the type that kind wants. */
static bool push_name(GENERAL_NAMES *names, int kind, void *value)
{
	GENERAL_NAME *name = value ? GENERAL_NAME_new() : NULL;

	if (!name) {
		ASN1_STRING_free(value);
		return false;
	}
	GENERAL_NAME_set0_value(name, kind, value);
	if (sk_GENERAL_NAME_push(names, name))
		return true;
	GENERAL_NAME_free(name);
	return false;
}

static bool push_text(GENERAL_NAMES *names, int kind, const char *text)
{
	ASN1_IA5STRING *value = ASN1_IA5STRING_new();

	if (value && !ASN1_STRING_set(value, text, -1)) {
		ASN1_IA5STRING_free(value);
		value = NULL;
	}
	return push_name(names, kind, value);
}

static bool fill_names(
	GENERAL_NAMES *names, const struct pki_template *template)
{
	const char *const *at;

	for (at = template->dns_names; at && *at; at++)
		if (!push_text(names, GEN_DNS, *at))
			return false;
	for (at = template->ip_addresses; at && *at; at++)
		if (!push_name(names, GEN_IPADD, a2i_IPADDRESS(*at)))
			return false;
	return !template->uri || push_text(names, GEN_URI, template->uri);
}

/* No extension at all when there is no name. */
static bool add_names(X509 *cert, const struct pki_template *template)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	bool ok = names && fill_names(names, template);

	if (ok && sk_GENERAL_NAME_num(names) > 0)
		ok = X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0,
			     X509V3_ADD_DEFAULT) == 1;
	GENERAL_NAMES_free(names);
	return ok;
}

static bool sign(X509 *cert, EVP_PKEY *key)
{
	/* EdDSA hashes by itself and refuses to be told how. */
	const EVP_MD *digest =
		EVP_PKEY_is_a(key, "ED25519") ? NULL : EVP_sha256();

	return X509_sign(cert, key, digest) > 0;
}

X509 *pki_ca_make(EVP_PKEY *key, const char *common_name, int64_t days)
{
	int64_t now = time(NULL);
	X509 *cert = X509_new();
	X509_NAME *subject;

	if (!cert)
		return NULL;
	subject = X509_get_subject_name(cert);
	if (X509_set_version(cert, X509_VERSION_3) && set_serial(cert) &&
		set_times(cert, now - CA_BACKDATE_S, now + days * 86400) &&
		add_entry(subject, NID_commonName, common_name) &&
		X509_set_issuer_name(cert, subject) &&
		X509_set_pubkey(cert, key) &&
		add_extension(cert, cert, NID_basic_constraints,
			"critical,CA:TRUE,pathlen:0") &&
		add_extension(cert, cert, NID_key_usage,
			"critical,keyCertSign,cRLSign") &&
		add_extension(cert, cert, NID_subject_key_identifier, "hash") &&
		sign(cert, key))
		return cert;
	X509_free(cert);
	ERR_clear_error();
	return NULL;
}

X509 *pki_ca_cross(
	X509 *ca, X509 *other, EVP_PKEY *other_key, int64_t not_after)
{
	X509 *cert = X509_new();

	if (cert && X509_set_version(cert, X509_VERSION_3) &&
		set_serial(cert) &&
		X509_set1_notBefore(cert, X509_get0_notBefore(ca)) &&
		ASN1_TIME_set(X509_getm_notAfter(cert), not_after) &&
		X509_set_subject_name(cert, X509_get_subject_name(ca)) &&
		X509_set_issuer_name(cert, X509_get_subject_name(other)) &&
		X509_set_pubkey(cert, X509_get0_pubkey(ca)) &&
		add_extension(cert, other, NID_basic_constraints,
			"critical,CA:TRUE,pathlen:0") &&
		add_extension(cert, other, NID_key_usage,
			"critical,keyCertSign,cRLSign") &&
		add_extension(
			cert, other, NID_subject_key_identifier, "hash") &&
		add_extension(cert, other, NID_authority_key_identifier,
			"keyid:always") &&
		sign(cert, other_key))
		return cert;
	X509_free(cert);
	ERR_clear_error();
	return NULL;
}

static bool set_subject(X509 *cert, const struct pki_template *template)
{
	X509_NAME *subject = X509_get_subject_name(cert);
	const char *const *at;

	if (!add_entry(subject, NID_commonName, template->common_name))
		return false;
	for (at = template->organizations; at && *at; at++)
		if (!add_entry(subject, NID_organizationName, *at))
			return false;
	return true;
}

X509 *pki_issue(const struct pki_template *template, EVP_PKEY *subject_key,
	X509 *ca, EVP_PKEY *ca_key, char **error_out)
{
	X509 *cert = X509_new();
	char text[256];

	if (cert && X509_set_version(cert, X509_VERSION_3) &&
		set_serial(cert) &&
		set_times(cert, template->not_before, template->not_after) &&
		set_subject(cert, template) &&
		X509_set_issuer_name(cert, X509_get_subject_name(ca)) &&
		X509_set_pubkey(cert, subject_key) &&
		add_extension(
			cert, ca, NID_basic_constraints, "critical,CA:FALSE") &&
		add_extension(
			cert, ca, NID_key_usage, "critical,digitalSignature") &&
		add_extension(cert, ca, NID_ext_key_usage,
			template->server ? "clientAuth,serverAuth"
					 : "clientAuth") &&
		add_extension(cert, ca, NID_subject_key_identifier, "hash") &&
		add_extension(cert, ca, NID_authority_key_identifier,
			"keyid:always") &&
		add_names(cert, template) && sign(cert, ca_key))
		return cert;
	X509_free(cert);
	tls_error_text(text, sizeof(text));
	if (error_out)
		*error_out = xasprintf("cannot make certificate: %s",
			text[0] ? text : "bad name");
	return NULL;
}
