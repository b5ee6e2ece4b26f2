/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy: takes clients and agents' tunnels and joins one to the other. Started
 * by a person or init it is the parent; started by itself with --worker, a
 * worker.
 */
#include <stdint.h>

#include "proxy/parent.h"
#include "proxy/worker.h"
#include "shared/daemon.h"
#include "shared/log.h"

int main(int argc, char **argv)
{
	struct daemon_options options;
	struct conf *conf = daemon_start(argc, argv, "proxy",
		"Takes clients and agents' tunnels on a proxy host.", true,
		&options);
	int status;

	if (!conf->proxy.enabled)
		die("%s: proxy_service is not enabled", options.config_path);
	status = options.worker >= 0
			 ? worker_run(conf, (uint32_t)options.worker)
			 : parent_run(conf, options.config_path);
	conf_free(conf);
	return status;
}
