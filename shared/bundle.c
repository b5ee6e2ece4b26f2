/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which CAs follow from which, see bundle.h. Owns nothing. What a newcomer gets
 * wrong: two CAs of one name are told apart by their keys alone, so a name is
 * never compared here without the key beside it.
 */
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "shared/bundle.h"

static X509_STORE *store_of(STACK_OF(X509) * cas)
{
	X509_STORE *store = X509_STORE_new();

	for (int i = 0; store && i < sk_X509_num(cas); i++) {
		if (!X509_STORE_add_cert(store, sk_X509_value(cas, i))) {
			X509_STORE_free(store);
			store = NULL;
		}
	}
	return store;
}

bool bundle_verifies(X509 *cert, STACK_OF(X509) * trusted,
	STACK_OF(X509) * untrusted, bool any_time)
{
	X509_STORE *store = store_of(trusted);
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	bool ok = store && ctx &&
		  X509_STORE_CTX_init(ctx, store, cert, untrusted);

	if (ok && any_time)
		X509_STORE_CTX_set_flags(ctx, X509_V_FLAG_NO_CHECK_TIME);
	ok = ok && X509_verify_cert(ctx) == 1;
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	ERR_clear_error();
	return ok;
}

static bool is_issued_by(X509 *cert, X509 *ca)
{
	bool ok = X509_check_issued(ca, cert) == X509_V_OK &&
		  X509_verify(cert, X509_get0_pubkey(ca)) == 1;

	ERR_clear_error();
	return ok;
}

X509 *bundle_issuer(STACK_OF(X509) * cas, X509 *cert)
{
	for (int i = 0; i < sk_X509_num(cas); i++)
		if (is_issued_by(cert, sk_X509_value(cas, i)))
			return sk_X509_value(cas, i);
	return NULL;
}

bool bundle_contains(STACK_OF(X509) * certs, X509 *cert)
{
	for (int i = 0; i < sk_X509_num(certs); i++)
		if (!X509_cmp(sk_X509_value(certs, i), cert))
			return true;
	return false;
}

bool bundle_equal(STACK_OF(X509) * a, STACK_OF(X509) * b)
{
	if (sk_X509_num(a) != sk_X509_num(b))
		return false;
	for (int i = 0; i < sk_X509_num(a); i++)
		if (!bundle_contains(b, sk_X509_value(a, i)))
			return false;
	return true;
}

/* Whether cert certifies ca's own name and key. */
static bool is_for(X509 *cert, X509 *ca)
{
	return X509_cmp(cert, ca) && X509_check_ca(cert) > 0 &&
	       !X509_NAME_cmp(X509_get_subject_name(cert),
		       X509_get_subject_name(ca)) &&
	       EVP_PKEY_eq(X509_get0_pubkey(cert), X509_get0_pubkey(ca)) == 1;
}

static bool is_vouched_for(
	X509 *ca, STACK_OF(X509) * trusted, STACK_OF(X509) * offered)
{
	for (int i = 0; i < sk_X509_num(offered); i++) {
		X509 *cert = sk_X509_value(offered, i);

		if (is_for(cert, ca) &&
			bundle_verifies(cert, trusted, NULL, false))
			return true;
	}
	return false;
}

STACK_OF(X509) *
	bundle_accept(STACK_OF(X509) * trusted, STACK_OF(X509) * offered)
{
	STACK_OF(X509) *accepted = sk_X509_new_null();

	for (int i = 0; accepted && i < sk_X509_num(offered); i++) {
		X509 *ca = sk_X509_value(offered, i);

		if (X509_check_ca(ca) <= 0 || X509_self_signed(ca, 1) != 1 ||
			bundle_contains(accepted, ca))
			continue;
		if (!bundle_contains(trusted, ca) &&
			!is_vouched_for(ca, trusted, offered))
			continue;
		if (X509_up_ref(ca) && sk_X509_push(accepted, ca) <= 0)
			X509_free(ca);
	}
	ERR_clear_error();
	return accepted;
}
