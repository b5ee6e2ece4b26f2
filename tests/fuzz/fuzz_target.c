/* SPDX-License-Identifier: Apache-2.0 */
/* Targets as clients write them; what is accepted must be well formed. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "shared/target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[2048];
	char why[64];
	struct target target;
	struct target_match matches[2] = {{.port = 22}, {.port = 80}};
	const char *reason = NULL;
	size_t index;

	if (size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (target_parse(text, "example.org", &target, &reason)) {
		assert(reason);
		return 0;
	}
	assert(!target.agent[0] != !target.agent_id[0]);
	assert(!target.agent[0] || identity_name_is_valid(target.agent));
	assert(!target.service[0] || identity_name_is_valid(target.service));
	memcpy(matches[0].service, target.service, sizeof(target.service));
	if (target_choose(&target, matches, 2, &index, why, sizeof(why)) ==
		TARGET_ONE)
		assert(index < 2);
	return 0;
}
