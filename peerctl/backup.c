/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backup: a copy of authd's store while authd serves. authd makes it in its own
 * directory (auth/backup.h says why there), and what is here takes it from
 * there, checks it whole and gives it its name. So peerctl has to be root or
 * authd's user, as for the store itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth/sqlite_file.h"
#include "peerctl/beside.h"
#include "peerctl/command.h"
#include "peerctl/status.h"
#include "peerctl/table.h"
#include "shared/alloc.h"
#include "shared/file.h"

#define LOOK_MS 100

enum { OPT_FORCE = OPTIONS_OWN };

static const struct argp_option list[] = {
	{"force", OPT_FORCE, NULL, 0, "Also when FILE exists: replace it", 0},
	{0},
};

static void on_option(void *own, int key, char *value, struct argp_state *state)
{
	*(bool *)own = true;
}

/* ---- authd's part ---- */

/* One line that changes; only where somebody watches. */
static void show(const json_t *status, bool quiet)
{
	long long copied = status_number(status, "copied");
	long long of = status_number(status, "of");

	if (quiet || !isatty(STDOUT_FILENO))
		return;
	printf("\r%-40s\rcopying: %lld%%", "", of ? copied * 100 / of : 0);
	fflush(stdout);
}

/* Until authd has made its copy, of the number in begun. */
static bool wait_until_copied(struct options *options, const json_t *begun)
{
	for (;;) {
		json_t *status = options_answer(options, "authd",
			"backup.status",
			json_pack("{s:O}", "id", json_object_get(begun, "id")));
		bool done = json_is_true(json_object_get(status, "done"));

		if (!status)
			return false;
		show(status, options->json);
		json_decref(status);
		if (done)
			break;
		usleep(LOOK_MS * 1000);
	}
	if (!options->json && isatty(STDOUT_FILENO))
		printf("\r%-40s\r", "");
	return true;
}

/* ---- our own ---- */

/* Authd's copy into ours; authd's goes. */
static int take(const char *from, struct beside *beside)
{
	int fd = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	bool reading;
	int ret;

	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return command_fail("%s: %s: be root or authd's user, since it "
				    "holds the CAs' keys",
			from, strerror(errno));
	if (fd < 0)
		return command_fail("%s: %s", from, strerror(errno));
	unlink(from); /* or authd does, later */
	ret = file_copy(fd, beside->fd, &reading);
	close(fd);
	return ret ? command_fail("%s: %s", reading ? from : beside->path,
			     strerror(-ret))
		   : EXIT_OK;
}

static int check(struct beside *beside, struct sqlite_file *file)
{
	char *fault = sqlite_file_fault(beside->temporary, file);

	if (!fault)
		return EXIT_OK;
	command_fail("the copy is of no use: %s", fault);
	free(fault);
	return EXIT_FAILED;
}

static void report(struct options *options, const char *path,
	const struct sqlite_file *file)
{
	struct stat st = {0};

	stat(path, &st);
	if (options->json)
		table_print_json(json_pack("{s:s, s:I, s:s, s:s, s:I, s:I}",
			"file", path, "bytes", (json_int_t)st.st_size,
			"cluster", file->cluster, "store_id", file->store_id,
			"revision", (json_int_t)file->revision, "schema",
			(json_int_t)file->schema));
	else
		printf("%s: %lld bytes, cluster %s, revision %llu\n", path,
			(long long)st.st_size, file->cluster,
			(unsigned long long)file->revision);
}

static int make(struct options *options, struct beside *beside, bool force)
{
	json_t *begun = options_answer(options, "authd", "backup.start", NULL);
	const char *from = json_string_value(json_object_get(begun, "path"));
	struct sqlite_file file;
	int failed = EXIT_FAILED;
	int ret;

	if (begun && !from)
		command_fail("authd's answer has no path");
	else if (begun && wait_until_copied(options, begun))
		failed = take(from, beside);
	json_decref(begun);
	if (!failed)
		failed = check(beside, &file);
	if (failed)
		return failed;
	ret = beside_place(beside, force);
	if (ret)
		return command_fail("%s: %s", beside->path, strerror(-ret));
	report(options, beside->path, &file);
	return EXIT_OK;
}

int backup_command(struct options *options, int argc, char **argv)
{
	bool force = false;
	const struct options_spec spec = {
		.argument = "FILE",
		.doc = "Copies authd's store into FILE (mode 0600) while authd "
		       "runs. It holds the keys of the CAs.",
		.list = list,
		.on_option = on_option,
		.own = &force,
	};
	const char *path = options_parse(options, argc, argv, &spec);
	struct beside beside;
	struct stat st;
	int ret;

	if (!force && lstat(path, &st) == 0)
		return command_fail("%s exists; --force replaces it", path);
	ret = beside_open(&beside, path);
	if (ret)
		return command_fail("%s: %s", path, strerror(-ret));
	ret = make(options, &beside, force);
	beside_drop(&beside);
	return ret;
}
