/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A command of peerctl and its place in a table; a command may itself be a
 * table (`token add`). Exit status: 0, 1 (it failed, one line says why), 2
 * (wrong usage).
 */

#include "peerctl/options.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct command {
	const char *name; /* a table ends with a NULL name */
	const char *summary;
	/* argv[0] is the whole command, as "peerctl token add". Gives the exit
	 * status; may also exit itself on wrong usage. */
	int (*run)(struct options *options, int argc, char **argv);
};

/* Options first, then the command that argv names. */
int command_run(const struct command *commands, const char *summary,
	struct options *options, int argc, char **argv);

/* Prints "peerctl: <line>" and gives EXIT_FAILED. */
int command_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

int status_command(struct options *options, int argc, char **argv);
int ls_command(struct options *options, int argc, char **argv);
int diag_command(struct options *options, int argc, char **argv);
int doctor_command(struct options *options, int argc, char **argv);
int ping_command(struct options *options, int argc, char **argv);
int routes_command(struct options *options, int argc, char **argv);
int trace_command(struct options *options, int argc, char **argv);
int validate_command(struct options *options, int argc, char **argv);
int drain_command(struct options *options, int argc, char **argv);
int undrain_command(struct options *options, int argc, char **argv);
int connect_command(struct options *options, int argc, char **argv);
int backup_command(struct options *options, int argc, char **argv);
int restore_command(struct options *options, int argc, char **argv);
int token_command(struct options *options, int argc, char **argv);
int ca_command(struct options *options, int argc, char **argv);
int identity_command(struct options *options, int argc, char **argv);
