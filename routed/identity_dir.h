/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The host's identity on disk, for every daemon of the host:
 * <root>/<n>/{cert,key,host_ca,user_ca}.pem, each set whole or not there at
 * all, and <root>/current, a symlink that is replaced in one step. A daemon
 * that is reading an old set finds it whole: the one before the current one
 * stays.
 */

struct identity_files {
	const char *cert;    /* PEM: leaf, then the CAs behind it */
	const char *key;     /* PEM */
	const char *host_ca; /* PEM, one or more */
	const char *user_ca; /* PEM; NULL: none */
};

/* Makes the next directory and points current at it. Gives its path, or NULL
 * and *error_out (gives). */
char *identity_dir_write(
	const char *root, const struct identity_files *files, char **error_out);
/* Where current points to; gives, NULL when there is none. */
char *identity_dir_current(const char *root);
