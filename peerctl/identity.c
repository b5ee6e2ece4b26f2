/* SPDX-License-Identifier: Apache-2.0 */
/*
 * identity issue: a user certificate. The key is made here and never travels;
 * authd gets a signing request and gives the certificate. The directory it
 * leaves (key.pem, cert.pem, host_ca.pem, user_ca.pem, cluster_name) is what
 * `peerctl connect --identity` reads.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "peerctl/command.h"
#include "peerctl/file.h"
#include "peerctl/table.h"
#include "shared/alloc.h"
#include "shared/pki.h"

#define DEFAULT_TTL_MS (12ull * 3600 * 1000)

struct issue_options {
	const char *user;
	json_t *groups;
	const char *out;
	uint64_t ttl_ms;
};

enum { OPT_USER = OPTIONS_OWN, OPT_GROUP, OPT_OUT, OPT_TTL };

static const struct argp_option issue_options_list[] = {
	{"user", OPT_USER, "USER", 0, "The same as the argument", 0},
	{"group", OPT_GROUP, "GROUP", 0, "A group of the user; may be repeated",
		0},
	{"out", OPT_OUT, "DIR", 0,
		"Directory for key.pem, cert.pem, host_ca.pem, user_ca.pem, "
		"cluster_name; made when absent",
		0},
	{"ttl", OPT_TTL, "TIME", 0, "How long it is good (default 12h)", 0},
	{0},
};

static void on_option(void *arg, int key, char *value, struct argp_state *state)
{
	struct issue_options *own = arg;

	switch (key) {
	case OPT_USER:
		if (own->user)
			argp_error(state, "more than one user: %s", value);
		own->user = value;
		break;
	case OPT_GROUP:
		json_array_append_new(own->groups, json_string(value));
		break;
	case OPT_OUT:
		own->out = value;
		break;
	case OPT_TTL:
		own->ttl_ms =
			options_time(state, "--ttl", value, 1000, UINT64_MAX);
		break;
	}
}

static void check(void *arg, const char *argument, struct argp_state *state)
{
	struct issue_options *own = arg;

	if (argument && own->user)
		argp_error(state, "more than one user: %s", argument);
	if (argument)
		own->user = argument;
	if (!own->user)
		argp_error(state, "USER is missing");
	if (!own->out)
		argp_error(state, "--out DIR is missing");
}

/* Gives the answer to identity.issue for key, or NULL after saying why. */
static json_t *ask_certificate(
	struct options *options, const struct issue_options *own, EVP_PKEY *key)
{
	size_t len;
	uint8_t *csr = pki_csr_make(key, &len);
	char *text = xcalloc(1, csr ? (len + 2) / 3 * 4 + 1 : 1);
	json_t *args;
	json_t *answer;

	if (csr)
		EVP_EncodeBlock((unsigned char *)text, csr, len);
	args = json_pack("{s:s,s:O,s:s,s:I}", "user", own->user, "groups",
		own->groups, "csr", text, "ttl_s",
		(json_int_t)(own->ttl_ms / 1000));
	answer = options_answer(options, "authd", "identity.issue", args);
	free(text);
	free(csr);
	return answer;
}

static int save(
	const char *dir, const char *name, mode_t mode, const char *text)
{
	char *path = xasprintf("%s/%s", dir, name);
	int ret = text ? file_write(path, mode, text, strlen(text)) : -EBADMSG;

	if (ret)
		command_fail("cannot write %s: %s", path, strerror(-ret));
	free(path);
	return ret;
}

static const char *text_of(const json_t *answer, const char *key)
{
	return json_string_value(json_object_get(answer, key));
}

/* The key last: a directory with a key is complete. */
static int save_all(const char *dir, const json_t *answer, const char *cluster,
	EVP_PKEY *key)
{
	char *pem;
	int ret;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return command_fail("cannot make %s: %s", dir, strerror(errno));
	if (save(dir, "cert.pem", 0644, text_of(answer, "cert_chain")) ||
		save(dir, "host_ca.pem", 0644, text_of(answer, "host_ca")) ||
		save(dir, "user_ca.pem", 0644, text_of(answer, "user_ca")) ||
		save(dir, "cluster_name", 0644, cluster))
		return EXIT_FAILED;
	pem = pki_key_to_pem(key);
	ret = save(dir, "key.pem", 0600, pem);
	if (pem)
		wipe(pem, strlen(pem));
	free(pem);
	return ret ? EXIT_FAILED : EXIT_OK;
}

static int issue(struct options *options, const struct issue_options *own)
{
	EVP_PKEY *key = pki_key_new();
	json_t *ca = options_answer(options, "authd", "ca", NULL);
	json_t *answer = NULL;
	int ret = EXIT_FAILED;

	if (ca)
		answer = ask_certificate(options, own, key);
	if (answer)
		ret = save_all(
			own->out, answer, text_of(ca, "cluster_name"), key);
	if (!ret && options->json)
		table_print_json(json_pack(
			"{s:s,s:s}", "user", own->user, "identity", own->out));
	else if (!ret)
		printf("%s\n", own->out);
	json_decref(ca);
	json_decref(answer);
	EVP_PKEY_free(key);
	return ret;
}

static int identity_issue(struct options *options, int argc, char **argv)
{
	struct issue_options own = {
		.groups = json_array(),
		.ttl_ms = DEFAULT_TTL_MS,
	};
	const struct options_spec spec = {
		.argument = "USER",
		.optional = true,
		.doc = "Makes a key and a user certificate for USER, and "
		       "prints the directory they are in.",
		.list = issue_options_list,
		.on_option = on_option,
		.check = check,
		.own = &own,
	};
	int ret;

	options_parse(options, argc, argv, &spec);
	ret = issue(options, &own);
	json_decref(own.groups);
	return ret;
}

int identity_command(struct options *options, int argc, char **argv)
{
	static const struct command commands[] = {
		{"issue", "make a key and a certificate", identity_issue},
		{NULL, NULL, NULL},
	};

	return command_run(commands,
		"User certificates, on the host that runs authd.", options,
		argc, argv);
}
