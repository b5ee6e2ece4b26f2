/* SPDX-License-Identifier: Apache-2.0 */
/* What a stranger presents as a join token, its signing request, and the
 * certificate of a renewal. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "auth/token.h"
#include "shared/alloc.h"
#include "shared/pki.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct token token = {
		.role = IDENTITY_PROXY, .expires = 10};
	char *text = xstrndup((const char *)data, size);
	char id[TOKEN_ID_SIZE];
	char *error = NULL;
	EVP_PKEY *key = pki_csr_key(data, size, &error);

	token_parse(text, id);
	if (token_verify(&token, text, IDENTITY_PROXY, "", 1) == TOKEN_GOOD)
		abort();
	EVP_PKEY_free(key);
	free(error);
	free(text);
	return 0;
}
