/* SPDX-License-Identifier: Apache-2.0 */
/* Errors as libraries word them, told apart by who does not trust whom. */
#include "tests/unit/test.h"

#include <openssl/x509_vfy.h>
#include <string.h>

#include "shared/distrust.h"

static void errors_of_both_libraries_are_understood(void **state)
{
	static const struct {
		const char *text;
		enum distrust distrust;
	} rows[] = {
		{"failed to connect to all addresses; last error: UNKNOWN: "
		 "ipv4:127.0.0.1:1: Ssl handshake failed: SSL_ERROR_SSL: "
		 "error:0A000086:SSL routines::certificate verify failed",
			DISTRUST_THEIRS},
		{"error:1000007d:SSL routines:OPENSSL_internal:"
		 "CERTIFICATE_VERIFY_FAILED",
			DISTRUST_THEIRS},
		{"TLS failed: tlsv1 alert unknown ca", DISTRUST_OURS},
		{"TLS failed: sslv3 alert certificate expired", DISTRUST_NONE},
		{"failed to connect to all addresses; last error: UNAVAILABLE: "
		 "ipv4:127.0.0.1:1: Socket closed",
			DISTRUST_MAYBE},
		{"Socket closed", DISTRUST_NONE},
		{"Connection refused", DISTRUST_NONE},
		{"", DISTRUST_NONE},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(
			distrust_of_text(rows[i].text), rows[i].distrust);
}

static void only_verdicts_about_the_ca_are_distrust(void **state)
{
	assert_int_equal(distrust_of_verdict(X509_V_OK), DISTRUST_NONE);
	assert_int_equal(distrust_of_verdict(X509_V_ERR_CERT_HAS_EXPIRED),
		DISTRUST_NONE);
	assert_int_equal(
		distrust_of_verdict(X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN),
		DISTRUST_THEIRS);
	assert_int_equal(distrust_of_verdict(
				 X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY),
		DISTRUST_THEIRS);
}

static void the_advice_says_what_to_do(void **state)
{
	assert_string_equal("", distrust_host_advice(DISTRUST_NONE));
	assert_string_equal("", distrust_user_advice(DISTRUST_NONE));
	assert_non_null(
		strstr(distrust_host_advice(DISTRUST_THEIRS), "join again"));
	assert_non_null(
		strstr(distrust_host_advice(DISTRUST_OURS), "join again"));
	assert_non_null(
		strstr(distrust_user_advice(DISTRUST_OURS), "new identity"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors_of_both_libraries_are_understood),
		cmocka_unit_test(only_verdicts_about_the_ca_are_distrust),
		cmocka_unit_test(the_advice_says_what_to_do),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
