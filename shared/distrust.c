/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words for distrust.h. What a newcomer gets wrong: in TLS 1.3 a client has
 * finished its handshake before the server looks at its certificate, so a
 * refusal arrives as an alert on what seemed to be a good connection.
 */
#include <openssl/x509_vfy.h>
#include <string.h>

#include "shared/distrust.h"

enum distrust distrust_of_verdict(long verdict)
{
	switch (verdict) {
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
		return DISTRUST_THEIRS;
	default:
		return DISTRUST_NONE;
	}
}

enum distrust distrust_of_text(const char *error)
{
	if (strcasestr(error, "unknown ca"))
		return DISTRUST_OURS;
	if (strcasestr(error, "certificate verify failed") ||
		strcasestr(error, "CERTIFICATE_VERIFY_FAILED"))
		return DISTRUST_THEIRS;
	if (strstr(error, "failed to connect") &&
		strstr(error, "Socket closed"))
		return DISTRUST_MAYBE;
	return DISTRUST_NONE;
}

const char *distrust_host_advice(enum distrust distrust)
{
	static const char *const texts[] = {
		[DISTRUST_NONE] = "",
		[DISTRUST_THEIRS] =
			": the certificate's CA is not trusted here; if a CA "
			"was withdrawn meanwhile, the host that was away must "
			"join again with a new token",
		[DISTRUST_OURS] =
			": the CA of our certificate is not trusted there; if "
			"it was withdrawn, this host must join again with a "
			"new token",
		[DISTRUST_MAYBE] =
			": closed after the handshake, perhaps because the CA "
			"of our certificate is not trusted there; if it was "
			"withdrawn, this host must join again with a new token",
	};

	return texts[distrust];
}

const char *distrust_user_advice(enum distrust distrust)
{
	static const char *const texts[] = {
		[DISTRUST_NONE] = "",
		[DISTRUST_THEIRS] =
			": the identity does not know the CA of the proxy's "
			"certificate; if that was replaced, get a new identity",
		[DISTRUST_OURS] =
			": the proxy does not trust the CA of the identity; if "
			"that was withdrawn, get a new identity",
		[DISTRUST_MAYBE] = "",
	};

	return texts[distrust];
}
