/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing key and certificates so that a crash at any point leaves either the
 * old file or the new one.
 */
#include "agent/keystore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/pki.h"

#define KEY_MAX 16384

static int write_all(int fd, const char *text)
{
	size_t len = strlen(text);

	while (len > 0) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= n;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

/* The name is safe only when the directory is on disk, too. */
static int sync_directory(const char *directory)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return -errno;
	ret = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

static int replace(const char *directory, const char *name, mode_t mode,
	const char *text, char **error_out)
{
	char *path = xasprintf("%s/%s", directory, name);
	char *beside = xasprintf("%s/.%s.new", directory, name);
	int fd, ret;

	/* What a crash left behind may have another mode. */
	unlink(beside);
	fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
		mode);
	ret = fd < 0 ? -errno : write_all(fd, text);
	if (fd >= 0)
		close(fd);
	if (ret == 0 && rename(beside, path) < 0)
		ret = -errno;
	if (ret == 0)
		ret = sync_directory(directory);
	if (ret < 0) {
		*error_out =
			xasprintf("cannot write %s: %s", path, strerror(-ret));
		unlink(beside);
	}
	free(beside);
	free(path);
	return ret;
}

/* Gives the file's text (to wipe()), or NULL with errno. */
static char *read_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text;
	ssize_t n;

	if (fd < 0)
		return NULL;
	text = xcalloc(1, KEY_MAX + 1);
	n = read(fd, text, KEY_MAX);
	close(fd);
	if (n < 0) {
		free(text);
		return NULL;
	}
	return text;
}

static EVP_PKEY *make_key(const char *directory, char **error_out)
{
	EVP_PKEY *key = pki_key_new();
	char *pem = key ? pki_key_to_pem(key) : NULL;

	if (!pem) {
		*error_out = xstrdup("cannot make a key");
		EVP_PKEY_free(key);
		return NULL;
	}
	if (replace(directory, "key.pem", 0600, pem, error_out) < 0) {
		EVP_PKEY_free(key);
		key = NULL;
	}
	wipe(pem, strlen(pem));
	free(pem);
	return key;
}

EVP_PKEY *keystore_key(const char *directory, char **error_out)
{
	char *path, *pem, *why = NULL;
	EVP_PKEY *key;

	if (mkdir(directory, 0700) < 0 && errno != EEXIST) {
		*error_out = xasprintf(
			"cannot make %s: %s", directory, strerror(errno));
		return NULL;
	}
	path = xasprintf("%s/key.pem", directory);
	pem = read_file(path);
	if (!pem && errno == ENOENT) {
		free(path);
		return make_key(directory, error_out);
	}
	key = pem ? pki_key_from_pem(pem, strlen(pem), &why) : NULL;
	if (!key)
		*error_out = xasprintf("cannot read %s: %s", path,
			why ? why : strerror(errno));
	if (pem)
		wipe(pem, KEY_MAX);
	free(pem);
	free(why);
	free(path);
	return key;
}

bool keystore_has_certificate(const char *directory)
{
	char *path = xasprintf("%s/cert.pem", directory);
	bool has = access(path, F_OK) == 0;

	free(path);
	return has;
}

int keystore_save_cas(
	const char *directory, const char *host_ca, char **error_out)
{
	return replace(directory, "host_ca.pem", 0644, host_ca, error_out);
}

int keystore_save(const char *directory, const char *cert_chain,
	const char *host_ca, const char *user_ca, char **error_out)
{
	int ret = replace(directory, "host_ca.pem", 0644, host_ca, error_out);

	if (ret == 0 && *user_ca)
		ret = replace(
			directory, "user_ca.pem", 0644, user_ca, error_out);
	if (ret == 0)
		ret = replace(
			directory, "cert.pem", 0644, cert_chain, error_out);
	return ret;
}
