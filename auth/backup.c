/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs for a copy of the store, see backup.h. */
#include "auth/backup.h"

#include <glob.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "auth/authd.h"
#include "shared/alloc.h"
#include "shared/log.h"

#define FORGET_MS (10 * 60000)

static char *copy_path(const struct authd *auth, const char *which)
{
	return xasprintf("%s/authd/backup-%s.db", auth->conf->data_dir, which);
}

static void forget(void *arg)
{
	struct authd *auth = arg;

	if (auth->backup.path && unlink(auth->backup.path) == 0)
		log_info("backup that nobody took removed: id=%u",
			auth->backup.id);
	free(auth->backup.path);
	auth->backup.path = NULL;
}

static void on_copied(void *arg, const char *error)
{
	struct authd *auth = arg;
	struct backup *backup = &auth->backup;

	backup->copying = false;
	if (error) {
		log_error("backup failed: %s id=%u", error, backup->id);
		backup->error = xstrdup(error);
		free(backup->path);
		backup->path = NULL;
		return;
	}
	log_info("backup made: id=%u", backup->id);
	if (!backup->forget)
		backup->forget = timer_new(auth->loop, forget, auth);
	timer_set(backup->forget, FORGET_MS);
}

/* The next one's number; what is left of the last one goes. */
static void renew(struct authd *auth)
{
	struct backup *backup = &auth->backup;
	char which[24];

	forget(auth);
	free(backup->error);
	backup->error = NULL;
	backup->id++;
	snprintf(which, sizeof(which), "%u", backup->id);
	backup->path = copy_path(auth, which);
	unlink(backup->path);
	backup->copying = true;
}

void backup_start(struct ctl_call *call, void *arg, json_t *args)
{
	struct authd *auth = arg;
	struct backup *backup = &auth->backup;
	enum backend_backup begun;

	if (backup->copying) {
		ctl_fail(call, "another backup is under way");
		return;
	}
	renew(auth);
	begun = backend_backup(auth->backend, backup->path, on_copied, auth);
	if (begun == BACKEND_BACKUP_BEGUN) {
		log_info("backup begun: id=%u", backup->id);
		ctl_reply(call,
			json_pack("{s:I, s:s}", "id", (json_int_t)backup->id,
				"path", backup->path));
		return;
	}
	backup->copying = false;
	free(backup->path);
	backup->path = NULL;
	ctl_fail(call,
		"the store is of type %s, which is backed up with its own "
		"tools (of etcd: etcdctl snapshot save)",
		auth->conf->auth.storage.type);
}

void backup_status(struct ctl_call *call, void *arg, json_t *args)
{
	struct authd *auth = arg;
	const struct backup *backup = &auth->backup;
	json_int_t id = 0;
	uint64_t copied;
	uint64_t of;

	if (json_unpack(args, "{s:I}", "id", &id) < 0 ||
		id != (json_int_t)backup->id) {
		ctl_fail(call, "there is no such backup");
		return;
	}
	if (backup->error) {
		ctl_fail(call, "%s", backup->error);
		return;
	}
	backend_backup_progress(auth->backend, &copied, &of);
	ctl_reply(call,
		json_pack("{s:b, s:I, s:I}", "done", !backup->copying, "copied",
			(json_int_t)copied, "of", (json_int_t)of));
}

void backup_clean(struct authd *auth)
{
	char *pattern = copy_path(auth, "*");
	glob_t found = {0};

	if (glob(pattern, GLOB_NOSORT, NULL, &found) == 0)
		for (size_t i = 0; i < found.gl_pathc; i++)
			unlink(found.gl_pathv[i]);
	globfree(&found);
	free(pattern);
}

void backup_deinit(struct authd *auth)
{
	forget(auth);
	timer_free(auth->backup.forget);
	free(auth->backup.error);
}
