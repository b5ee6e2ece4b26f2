/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Takes secrets out of text that leaves the host. Two nets: what looks like one
 * (the user and password of a URL, a PEM private key), and the contents of
 * every file and key that the configuration names as secret, wherever they
 * turn up. Pure but for scrub_new(), which reads these files.
 */

#include "shared/conf.h"

struct scrub;
/* Reads what conf names as secret and is there to be read. Gives. */
struct scrub *scrub_new(const struct conf *conf);
void scrub_free(struct scrub *scrub);
/* One more secret (copied); shorter than 6 characters: not looked for. */
void scrub_add(struct scrub *scrub, const char *secret);

/* A copy without them; gives. */
char *scrub_text(const struct scrub *scrub, const char *text);
/* The configuration file's text as YAML with the same keys and values, but no
 * comments and no secrets; gives, or NULL and *error_out (gives). */
char *scrub_conf(const struct scrub *scrub, const char *path, const char *text,
	char **error_out);
