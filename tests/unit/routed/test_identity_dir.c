/* SPDX-License-Identifier: Apache-2.0 */
/* Identities on disk: whole or not there, the group may read, the last two
 * stay, what a crash has left is in nobody's way. */
#include "tests/unit/test.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "routed/identity_dir.h"
#include "shared/alloc.h"

struct fixture {
	char top[64];
	char *root;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	umask(077); /* the strictest that a service manager may set */
	strcpy(f->top, "/tmp/peerway-identity-XXXXXX");
	assert_non_null(mkdtemp(f->top));
	f->root = xasprintf("%s/identity", f->top);
	*state = f;
	return 0;
}

static int remove_one(
	const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	nftw(f->top, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(f->root);
	free(f);
	return 0;
}

static void write_one(struct fixture *f, const char *cert, const char *user_ca)
{
	struct identity_files files = {.cert = cert,
		.key = "key",
		.host_ca = "host",
		.user_ca = user_ca};
	char *error = NULL;
	char *directory = identity_dir_write(f->root, &files, &error);

	assert_non_null(directory);
	free(directory);
}

/* Of a file below root; "" when it is not there. */
static const char *content(struct fixture *f, const char *name)
{
	static char text[64];
	char *path = xasprintf("%s/%s", f->root, name);
	FILE *file = fopen(path, "r");
	size_t len = file ? fread(text, 1, sizeof(text) - 1, file) : 0;

	text[len] = '\0';
	if (file)
		fclose(file);
	free(path);
	return text;
}

static mode_t mode_of(struct fixture *f, const char *name)
{
	char *path = xasprintf("%s/%s", f->root, name);
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	free(path);
	return st.st_mode & 07777;
}

static void current_is_the_last_one_written(void **state)
{
	struct fixture *f = *state;
	char *current;

	assert_null(identity_dir_current(f->root));
	write_one(f, "first", "user");
	assert_string_equal(content(f, "current/cert.pem"), "first");
	assert_string_equal(content(f, "current/user_ca.pem"), "user");
	write_one(f, "second", NULL);
	assert_string_equal(content(f, "current/cert.pem"), "second");
	assert_string_equal(content(f, "current/key.pem"), "key");
	assert_string_equal(content(f, "current/host_ca.pem"), "host");
	assert_string_equal(content(f, "current/user_ca.pem"), "");
	current = identity_dir_current(f->root);
	assert_non_null(strstr(current, "/identity/2"));
	free(current);
}

static void the_one_before_stays_and_older_ones_go(void **state)
{
	struct fixture *f = *state;

	write_one(f, "first", NULL);
	write_one(f, "second", NULL);
	write_one(f, "third", NULL);
	assert_string_equal(content(f, "1/cert.pem"), "");
	assert_string_equal(content(f, "2/cert.pem"), "second");
	assert_string_equal(content(f, "3/cert.pem"), "third");
}

static void the_group_reads_whatever_the_umask_says(void **state)
{
	struct fixture *f = *state;

	write_one(f, "first", NULL);
	assert_int_equal(mode_of(f, "."), 02750);
	assert_int_equal(mode_of(f, "current"), 02750);
	assert_int_equal(mode_of(f, "current/key.pem"), 0640);
	assert_int_equal(mode_of(f, "current/cert.pem"), 0644);
}

static void what_a_crash_has_left_is_replaced(void **state)
{
	struct fixture *f = *state;
	char *partial = xasprintf("%s/partial", f->root);
	char *path = xasprintf("%s/cert.pem", partial);
	FILE *file;

	write_one(f, "first", NULL);
	assert_int_equal(mkdir(partial, 0700), 0);
	file = fopen(path, "w");
	assert_non_null(file);
	fclose(file);
	write_one(f, "second", NULL);
	assert_string_equal(content(f, "current/cert.pem"), "second");
	assert_int_equal(access(partial, F_OK), -1);
	free(path);
	free(partial);
}

static void a_root_that_cannot_be_made_is_an_error(void **state)
{
	struct identity_files files = {"cert", "key", "host", NULL};
	char *error = NULL;

	assert_null(identity_dir_write("/proc/nowhere", &files, &error));
	assert_non_null(strstr(error, "/proc/nowhere"));
	free(error);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(current_is_the_last_one_written),
		TEST(the_one_before_stays_and_older_ones_go),
		TEST(the_group_reads_whatever_the_umask_says),
		TEST(what_a_crash_has_left_is_replaced),
		TEST(a_root_that_cannot_be_made_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
