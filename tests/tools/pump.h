/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * pump: makes traffic that can be checked, for tests and benchmarks.
 * `pump serve` is the service, `pump load` many clients of one target.
 */

#include <stdbool.h>
#include <stdint.h>

struct pump_load_options {
	const char *proxy; /* host:port */
	const char *name;  /* server name that the proxy's certificate bears */
	const char *ca;	   /* PEM files */
	const char *cert;
	const char *key;
	const char *target; /* NULL: no TLS, no CONNECT, proxy is the service */
	unsigned connections;
	uint64_t up; /* bytes each */
	uint64_t down;
	unsigned deadline_s;
};

/* Both give the exit status. load prints one JSON object for each connection.
 */
int pump_serve(void);
int pump_load(const struct pump_load_options *options);
