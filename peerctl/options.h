/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Options that every command has, before or after its name, and the question
 * to a daemon of this host.
 */

#include <argp.h>
#include <jansson.h>
#include <stdbool.h>

#include "shared/conf.h"

struct options {
	const char *config_path; /* -c; NULL: not given */
	const char *run_dir;	 /* --run-dir; NULL: from the configuration */
	bool json;		 /* --format json */
	struct conf *conf;	 /* loaded when first needed; NULL: none */
};

/* A child for a command's argp; its input is the struct options. */
extern const struct argp options_argp;

/* Directory of the daemons' sockets, borrowed; NULL after printing why not.
 * Sets options->conf when a configuration file was read. */
const char *options_run_dir(struct options *options);

/* Asks the daemon ("peerd") and gives its answer, or NULL and *error_out
 * (gives). args may be NULL. */
json_t *options_ask(struct options *options, const char *daemon,
	const char *verb, const json_t *args, char **error_out);
void options_free(struct options *options);
