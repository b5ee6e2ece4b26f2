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

#define OPTIONS_DEFAULT_CONFIG "/etc/peerway/peerway.yaml"

struct options {
	const char *config_path; /* -c; NULL: not given */
	const char *run_dir;	 /* --run-dir; NULL: from the configuration */
	bool json;		 /* --format json */
	int ask_ms;		 /* a daemon has to answer; 0: 30 s */
	struct conf *conf;	 /* loaded when first needed; NULL: none */
};

/* A child for command.c's argp; its input is the struct options. */
extern const struct argp options_argp;

/* A command's own part of the command line. */
struct options_spec {
	const char *doc;		/* --help */
	const char *argument;		/* as "AGENT"; NULL: takes none */
	bool optional;			/* the argument need not be given */
	const struct argp_option *list; /* own options; NULL: none */
	/* One of them; argp_error() for what makes no sense. Keys from
	 * OPTIONS_OWN on, or a letter. */
	void (*on_option)(
		void *own, int key, char *value, struct argp_state *state);
	/* Everything has been read; NULL: nothing to check. */
	void (*check)(
		void *own, const char *argument, struct argp_state *state);
	void *own;
};

#define OPTIONS_OWN 0x2000

/* Reads the command line; exits with status 2 on wrong usage. Gives the
 * argument (of argv), NULL when there is none. */
const char *options_parse(struct options *options, int argc, char **argv,
	const struct options_spec *spec);
/* A time such as 30m between min and max milliseconds, or wrong usage. */
uint64_t options_time(struct argp_state *state, const char *option,
	const char *value, uint64_t min_ms, uint64_t max_ms);

/* The configuration of this host, borrowed; NULL after printing why not. */
const struct conf *options_conf(struct options *options);
/* Directory of the daemons' sockets, borrowed; NULL after printing why not.
 * Sets options->conf when a configuration file was read. */
const char *options_run_dir(struct options *options);

/* Asks the daemon ("peerd") and gives its answer, or NULL and *error_out
 * (gives). args may be NULL. */
json_t *options_ask(struct options *options, const char *daemon,
	const char *verb, const json_t *args, char **error_out);
/* The same, takes args; NULL after saying why on stderr. */
json_t *options_answer(struct options *options, const char *daemon,
	const char *verb, json_t *args);
void options_free(struct options *options);
