/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration files: loaded or refused with one printable line. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shared/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *error = NULL;
	struct conf *conf = conf_parse("f.yaml", data, size, &error);

	assert(!conf == !!error);
	if (error) {
		assert(!strncmp(error, "f.yaml:", strlen("f.yaml:")));
		assert(!strchr(error, '\n'));
	} else {
		assert(conf->cluster_name && *conf->cluster_name);
		assert(conf->agent.name && conf->proxy.min_tls);
	}
	conf_free(conf);
	free(error);
	return 0;
}
