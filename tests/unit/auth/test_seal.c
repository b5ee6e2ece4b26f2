/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed secrets: opened by the same key under the same name, by nothing else.
 */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth/seal.h"

struct fixture {
	char dir[64];
	char path[80];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/peerway-seal-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/ca.key", f->dir);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	unlink(f->path);
	rmdir(f->dir);
	free(f);
	return 0;
}

static struct seal *open_seal(const char *path)
{
	char *error = NULL;
	struct seal *seal = seal_new(path, &error);

	if (!seal)
		fail_msg("%s", error);
	return seal;
}

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void check_opens(
	const struct seal *seal, const char *name, const char *text)
{
	const char *why = NULL;
	char *secret = seal_open(seal, name, text, strlen(text), &why);

	assert_non_null(secret);
	assert_string_equal("a secret", secret);
	free(secret);
}

static void check_refused(const struct seal *seal, const char *name,
	const char *text, const char *expected)
{
	const char *why = NULL;

	assert_null(seal_open(seal, name, text, strlen(text), &why));
	assert_non_null(strstr(why, expected));
}

static void a_secret_comes_back(void **state)
{
	struct fixture *f = *state;
	struct seal *seal = open_seal(f->path);
	struct seal *again;
	char *error = NULL;
	char *text, *other;
	struct stat st;

	assert_false(seal_is_ready(seal));
	assert_int_equal(0, seal_make(seal, &error));
	assert_true(seal_is_ready(seal));
	assert_int_equal(0, stat(f->path, &st));
	assert_int_equal(0600, st.st_mode & 0777);
	text = seal_close(seal, "host/key", "a secret");
	other = seal_close(seal, "host/key", "a secret");
	assert_string_not_equal(text, other);
	assert_null(strstr(text, "secret"));
	check_opens(seal, "host/key", text);
	/* by the file, on another host */
	again = open_seal(f->path);
	assert_true(seal_is_ready(again));
	check_opens(again, "host/key", other);
	seal_free(again);
	seal_free(seal);
	free(text);
	free(other);
}

static void what_is_not_as_it_was_is_refused(void **state)
{
	struct fixture *f = *state;
	struct seal *seal = open_seal(f->path);
	struct seal *none = open_seal("");
	char *error = NULL;
	char *text;

	seal_make(seal, &error);
	text = seal_close(seal, "host/key", "a secret");
	check_refused(seal, "user/key", text, "meddled");
	check_refused(seal, "host/key", "a secret", "not sealed");
	check_refused(none, "host/key", text, "the key is not here");
	for (size_t i = strlen("sealed-1:"); i < strlen(text); i++) {
		char was = text[i];

		text[i] = was == 'A' ? 'B' : 'A';
		check_refused(seal, "host/key", text, "meddled");
		text[i] = was;
	}
	check_opens(seal, "host/key", text);
	text[strlen(text) - 4] = '\0';
	check_refused(seal, "host/key", text, "meddled");
	check_refused(seal, "host/key", "sealed-1:", "meddled");
	check_refused(seal, "host/key", "sealed-1:====", "meddled");
	check_refused(seal, "host/key", "sealed-1:AAA", "meddled");
	free(text);
	seal_free(seal);
	seal_free(none);
}

static void another_key_opens_nothing(void **state)
{
	struct fixture *f = *state;
	struct seal *seal = open_seal(f->path);
	struct seal *other;
	char *error = NULL;
	char *text;

	seal_make(seal, &error);
	text = seal_close(seal, "host/key", "a secret");
	write_file(f->path, "000102030405060708090a0b0c0d0e0f"
			    "101112131415161718191A1B1C1D1E1F\n");
	other = open_seal(f->path);
	check_refused(other, "host/key", text, "another key");
	/* a file that is there is never overwritten */
	assert_int_equal(-EEXIST, seal_make(other, &error));
	free(error);
	free(text);
	seal_free(other);
	seal_free(seal);
}

static void a_file_that_is_no_key_is_refused(void **state)
{
	struct fixture *f = *state;
	static const char *const texts[] = {"", "abc\n",
		"000102030405060708090a0b0c0d0e0f"
		"101112131415161718191a1b1c1d1e1f00\n",
		"000102030405060708090a0b0c0d0e0f"
		"101112131415161718191a1b1c1d1eXX\n",
		"000102030405060708090a0b0c0d0e0f"
		"101112131415161718191a1b1c1d1e1f\nmore\n"};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		char *error = NULL;

		write_file(f->path, texts[i]);
		assert_null(seal_new(f->path, &error));
		assert_non_null(strstr(error, "64 hexadecimal digits"));
		free(error);
	}
}

static void without_a_file_nothing_is_sealed(void **state)
{
	struct seal *seal = open_seal("");
	char *text;

	assert_true(seal_is_ready(seal));
	text = seal_close(seal, "host/key", "a secret");
	assert_string_equal("a secret", text);
	check_opens(seal, "host/key", text);
	free(text);
	seal_free(seal);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_secret_comes_back),
		TEST(what_is_not_as_it_was_is_refused),
		TEST(another_key_opens_nothing),
		TEST(a_file_that_is_no_key_is_refused),
		TEST(without_a_file_nothing_is_sealed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
