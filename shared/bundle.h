/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Sets of CAs, and how trust is handed from one to the next. While a CA is
 * replaced there are two of one name, and the one that signed before has
 * certified the other's key (cross certificate, pki_ca_cross()). Who trusts one
 * may trust the other on that word alone, whoever brought it. Pure.
 */

#include <openssl/x509.h>
#include <stdbool.h>

/* Whether cert leads to one of trusted, if need be by way of untrusted. Dates
 * count unless any_time. */
bool bundle_verifies(X509 *cert, STACK_OF(X509) * trusted,
	STACK_OF(X509) * untrusted, bool any_time);
/* The CA whose key signed cert; borrowed, NULL: none of these. */
X509 *bundle_issuer(STACK_OF(X509) * cas, X509 *cert);
bool bundle_contains(STACK_OF(X509) * certs, X509 *cert);
/* The same certificates, in any order. */
bool bundle_equal(STACK_OF(X509) * a, STACK_OF(X509) * b);
/* Of what is offered (CAs and cross certificates) the CAs that who trusts
 * `trusted` may trust: those it has, and those that one of them has certified.
 * Gives a stack (sk_X509_pop_free), perhaps empty. */
STACK_OF(X509) *
	bundle_accept(STACK_OF(X509) * trusted, STACK_OF(X509) * offered);
