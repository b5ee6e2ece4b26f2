/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/keystore.h"

struct fixture {
	char parent[64];
	char store[80];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->parent, "/tmp/peerway-keystore-XXXXXX");
	assert_non_null(mkdtemp(f->parent));
	snprintf(f->store, sizeof(f->store), "%s/agent", f->parent);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char command[192];

	snprintf(command, sizeof(command), "chmod -R u+w %s; rm -rf %s",
		f->parent, f->parent);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static void path_of(const struct fixture *f, const char *name, char *path)
{
	sprintf(path, "%s/%s", f->store, name);
}

static void contains(
	const struct fixture *f, const char *name, const char *want)
{
	char path[128], text[128] = "";
	FILE *file;

	path_of(f, name, path);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_true(fread(text, 1, sizeof(text) - 1, file) > 0);
	fclose(file);
	assert_string_equal(text, want);
}

static void test_the_key_is_made_once_and_is_private(void **state)
{
	struct fixture *f = *state;
	char *error = NULL, path[128];
	EVP_PKEY *first = keystore_key(f->store, &error);
	EVP_PKEY *second = keystore_key(f->store, &error);
	struct stat st;

	assert_non_null(first);
	assert_non_null(second);
	assert_int_equal(EVP_PKEY_eq(first, second), 1);
	path_of(f, "key.pem", path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(stat(f->store, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	EVP_PKEY_free(first);
	EVP_PKEY_free(second);
}

static void test_certificates_are_replaced_whole(void **state)
{
	struct fixture *f = *state;
	char *error = NULL, path[128];
	int fd;

	EVP_PKEY_free(keystore_key(f->store, &error));
	assert_false(keystore_has_certificate(f->store));
	/* what a crash in mid-write leaves */
	path_of(f, ".cert.pem.new", path);
	fd = open(path, O_CREAT | O_WRONLY, 0400);
	close(fd);
	assert_int_equal(
		keystore_save(f->store, "chain", "host", "", &error), 0);
	assert_true(keystore_has_certificate(f->store));
	contains(f, "cert.pem", "chain");
	contains(f, "host_ca.pem", "host");
	path_of(f, "user_ca.pem", path);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(
		keystore_save(f->store, "new", "host", "user", &error), 0);
	contains(f, "cert.pem", "new");
	contains(f, "user_ca.pem", "user");
	path_of(f, ".cert.pem.new", path);
	assert_int_equal(access(path, F_OK), -1);
}

static void test_a_broken_key_is_not_replaced(void **state)
{
	struct fixture *f = *state;
	char *error = NULL, path[128];
	FILE *file;

	assert_int_equal(mkdir(f->store, 0700), 0);
	path_of(f, "key.pem", path);
	file = fopen(path, "w");
	fputs("not a key", file);
	fclose(file);
	assert_null(keystore_key(f->store, &error));
	assert_non_null(strstr(error, "key.pem: no usable private key"));
	free(error);
	contains(f, "key.pem", "not a key");
}

static void test_a_directory_that_cannot_be_made(void **state)
{
	char *error = NULL;

	assert_null(keystore_key("/nonexistent/agent", &error));
	assert_string_equal(error,
		"cannot make /nonexistent/agent: No such file or directory");
	free(error);
	error = NULL;
	assert_int_equal(
		keystore_save("/nonexistent/agent", "a", "b", "c", &error),
		-ENOENT);
	assert_string_equal(error, "cannot write /nonexistent/agent/"
				   "host_ca.pem: No such file or directory");
	free(error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		CASE(test_the_key_is_made_once_and_is_private),
		CASE(test_certificates_are_replaced_whole),
		CASE(test_a_broken_key_is_not_replaced),
		CASE(test_a_directory_that_cannot_be_made),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
