/* SPDX-License-Identifier: Apache-2.0 */

/* pump's command line; see pump.h. */

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tools/pump.h"

static const struct option long_options[] = {
	{"proxy", required_argument, NULL, 'p'},
	{"name", required_argument, NULL, 'n'},
	{"ca", required_argument, NULL, 'a'},
	{"cert", required_argument, NULL, 'c'},
	{"key", required_argument, NULL, 'k'},
	{"target", required_argument, NULL, 't'},
	{"connections", required_argument, NULL, 'N'},
	{"up", required_argument, NULL, 'u'},
	{"down", required_argument, NULL, 'd'},
	{"deadline", required_argument, NULL, 'D'},
	{NULL, 0, NULL, 0},
};

static int usage(void)
{
	fprintf(stderr,
		"usage: pump serve\n"
		"       pump load --proxy HOST:PORT [--target TARGET --name "
		"NAME"
		" --ca FILE --cert FILE --key FILE]\n"
		"                 [--connections N] [--up BYTES] [--down BYTES]"
		" [--deadline SECONDS]\n");
	return 2;
}

static int load_main(int argc, char **argv)
{
	struct pump_load_options options = {.connections = 1, .deadline_s = 60};
	int option;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) !=
		-1) {
		switch (option) {
		case 'p':
			options.proxy = optarg;
			break;
		case 'n':
			options.name = optarg;
			break;
		case 'a':
			options.ca = optarg;
			break;
		case 'c':
			options.cert = optarg;
			break;
		case 'k':
			options.key = optarg;
			break;
		case 't':
			options.target = optarg;
			break;
		case 'N':
			options.connections = (unsigned)atoi(optarg);
			break;
		case 'u':
			options.up = strtoull(optarg, NULL, 10);
			break;
		case 'd':
			options.down = strtoull(optarg, NULL, 10);
			break;
		case 'D':
			options.deadline_s = (unsigned)atoi(optarg);
			break;
		default:
			return usage();
		}
	}
	if (!options.proxy || !options.connections ||
		(options.target && !(options.name && options.ca &&
					   options.cert && options.key)))
		return usage();
	return pump_load(&options);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc == 2 && !strcmp(argv[1], "serve"))
		return pump_serve();
	if (argc > 2 && !strcmp(argv[1], "load"))
		return load_main(argc - 1, argv + 1);
	return usage();
}
