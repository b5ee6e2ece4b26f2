/* SPDX-License-Identifier: Apache-2.0 */
/* What is read must be written again, refusals must have a reason, and an agent
 * must be able to use any list that it believes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/fleet.h"
#include "shared/discovery.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct discovery *discovery)
{
	struct fleet *fleet = fleet_new(discovery);

	if (fleet->count != discovery->proxy_count)
		abort();
	for (size_t i = 0; i < fleet->count; i++) {
		const struct fleet_proxy *proxy = &fleet->proxies[i];

		if (!fleet_find(fleet, proxy->id))
			abort();
		if (proxy->addr_count && !fleet_at(fleet, proxy->addrs[0]))
			abort();
	}
	fleet_unref(fleet);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *error = NULL;
	struct discovery *in =
		discovery_from_json((const char *)data, size, &error);
	struct discovery *again;
	char *text;

	if (!in) {
		if (!error || !*error)
			abort();
		free(error);
		return 0;
	}
	text = discovery_to_json(in, true);
	if (!text)
		abort();
	again = discovery_from_json(text, strlen(text), &error);
	if (!again)
		abort();
	use(in);
	discovery_free(again);
	discovery_free(in);
	free(text);
	return 0;
}
