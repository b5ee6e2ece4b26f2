/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever a proxy says of CAs, an agent comes to trust none that its own has
 * not certified; and nothing here can sign with the agent's CA. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/trust.h"
#include "tests/unit/host_ca.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct tls_identity *now;
	struct trust_word word = {0};
	char *host_ca = NULL;
	char *text = xstrndup((const char *)data, size);

	if (!now) {
		struct ca ca = ca_make();

		now = ca_identity(
			&ca, "Node", "0a1b2c3d-0000-4000-8000-00000000000a");
		ca_free(&ca);
	}
	/* alone, then behind the agent's own */
	word.host_ca = text;
	if (trust_next(&word, now, &host_ca) == TRUST_OTHER)
		abort();
	word.host_ca = xasprintf("%s%s", now->host_ca_pem, text);
	if (trust_next(&word, now, &host_ca) == TRUST_OTHER)
		abort();
	free(word.host_ca);
	free(text);
	return 0;
}
