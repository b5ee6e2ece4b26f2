/* SPDX-License-Identifier: Apache-2.0 */
/* peerctl(1): the one command line of Peerway. Wiring only. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "peerctl/command.h"

const char *argp_program_version = "peerctl " PEERWAY_VERSION;

static const struct command commands[] = {
	{"status", "the mesh as this host sees it", status_command},
	{"ls", "agents online and their services", ls_command},
	{"routes", "which proxies hold an agent's tunnels", routes_command},
	{"ping", "whether a peer answers, and how fast", ping_command},
	{"trace", "how a dial of a target goes, hop by hop", trace_command},
	{"validate", "whether authd, cache and live tunnels agree",
		validate_command},
	{"doctor", "whether this host is as its daemons need it",
		doctor_command},
	{"diag", "pack configuration, status and logs, without secrets",
		diag_command},
	{"drain", "take this proxy host out of service", drain_command},
	{"undrain", "take it into service again", undrain_command},
	{"connect", "connect stdin and stdout to a target", connect_command},
	{"token", "join tokens: add, ls, rm", token_command},
	{"identity", "user certificates: issue", identity_command},
	{"backup", "copy authd's store into a file, while it runs",
		backup_command},
	{"restore", "put such a file in place of the store", restore_command},
	{"ca", "certificate authorities: rotate", ca_command},
	{NULL, NULL, NULL},
};

int main(int argc, char **argv)
{
	struct options options = {0};
	char name[] = "peerctl";
	int ret;

	argp_err_exit_status = EXIT_USAGE;
	signal(SIGPIPE, SIG_IGN);
	argv[0] = name;
	ret = command_run(commands,
		"Status, administration and client of Peerway.", &options, argc,
		argv);
	options_free(&options);
	if (fflush(stdout) == EOF || ferror(stdout))
		ret = command_fail("cannot write the output");
	return ret;
}
