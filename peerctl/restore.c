/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore: puts what backup made in place of authd's store, while authd does
 * not run (auth/sqlite_file.h). Asks no daemon.
 *
 * Root opens FILE and then becomes the owner of the store's directory: what is
 * made there gets the right owner, and that owner's directory cannot lead root
 * anywhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth/sqlite_file.h"
#include "peerctl/command.h"
#include "peerctl/table.h"
#include "shared/alloc.h"

/* Of the newest changes nothing is in the file then. */
static bool has_log(const char *path)
{
	char *log = xasprintf("%s-wal", path);
	struct stat st;
	bool has = stat(log, &st) == 0 && st.st_size > 0;

	free(log);
	return has;
}

/* The configuration of a host where this makes sense, or NULL after saying why
 * not. */
static const struct conf *auth_conf(struct options *options)
{
	const struct conf *conf = options_conf(options);

	if (!conf)
		return NULL;
	if (!conf->auth.enabled) {
		command_fail("auth_service is not enabled on this host: the "
			     "store is where authd is");
		return NULL;
	}
	if (strcmp(conf->auth.storage.type, "sqlite")) {
		command_fail("the store is of type %s, which is restored with "
			     "its own tools",
			conf->auth.storage.type);
		return NULL;
	}
	return conf;
}

static int become_owner(const char *directory)
{
	struct stat st;

	if (stat(directory, &st) < 0)
		return command_fail("%s: %s%s", directory, strerror(errno),
			errno == ENOENT ? ": start authd here once, stop it, "
					  "and restore then"
					: "");
	if (geteuid() == 0 &&
		(setegid(st.st_gid) < 0 || seteuid(st.st_uid) < 0))
		return command_fail("cannot become the owner of %s: %s",
			directory, strerror(errno));
	return EXIT_OK;
}

static void report(struct options *options, const char *path,
	const struct sqlite_file *file, const char *kept)
{
	if (options->json) {
		table_print_json(json_pack("{s:s, s:s, s:s, s:I, s:I, s:s?}",
			"file", path, "cluster", file->cluster, "store_id",
			file->store_id, "revision", (json_int_t)file->revision,
			"schema", (json_int_t)file->schema, "kept", kept));
		return;
	}
	printf("restored: cluster %s, revision %llu\n", file->cluster,
		(unsigned long long)file->revision);
	if (kept)
		printf("the store that was there: %s\n", kept);
	printf("now start authd\n");
}

static int restore(struct options *options, const struct conf *conf,
	const char *path, int fd)
{
	char *directory = xasprintf("%s/authd", conf->data_dir);
	char *store = xasprintf("%s/backend.db", directory);
	struct sqlite_file file;
	char *kept = NULL;
	char *error = NULL;
	int ret = become_owner(directory);

	if (!ret && sqlite_file_restore(store, fd, conf->cluster_name, &file,
			    &kept, &error))
		report(options, path, &file, kept);
	else if (!ret)
		ret = command_fail("%s not restored: %s", path, error);
	free(error);
	free(kept);
	free(store);
	free(directory);
	return ret;
}

int restore_command(struct options *options, int argc, char **argv)
{
	const struct options_spec spec = {
		.argument = "FILE",
		.doc = "Puts FILE, which backup made, in place of authd's "
		       "store. authd must not run. The store that is there is "
		       "kept beside it.",
	};
	const char *path = options_parse(options, argc, argv, &spec);
	const struct conf *conf = auth_conf(options);
	int ret;
	int fd;

	if (!conf)
		return EXIT_FAILED;
	if (has_log(path))
		return command_fail("%s not restored: its newest changes are "
				    "in %s-wal, so it is not what backup makes",
			path, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return command_fail("%s: %s", path, strerror(errno));
	ret = restore(options, conf, path, fd);
	close(fd);
	return ret;
}
