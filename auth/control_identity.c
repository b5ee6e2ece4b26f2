/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates of users. Owns each struct issuing until it is answered. What a
 * newcomer gets wrong: a user's private key is made by peerctl and stays there;
 * what arrives here is a signing request. And before the certificate is given
 * away its end is written down, for whoever withdraws its CA.
 */
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/control_identity.h"
#include "auth/issue.h"
#include "auth/survey.h"
#include "shared/alloc.h"
#include "shared/log.h"
#include "shared/pki.h"

#define CSR_TEXT_MAX 24000

/* The key of a signing request in base64; gives. */
static EVP_PKEY *request_key(const char *text)
{
	size_t len = strlen(text);
	uint8_t *der;
	EVP_PKEY *key = NULL;
	int n;

	if (len < 4 || len > CSR_TEXT_MAX || len % 4)
		return NULL;
	der = xcalloc(1, len);
	n = EVP_DecodeBlock(der, (const unsigned char *)text, (int)len);
	/* it counts the padding as bytes */
	n -= (text[len - 1] == '=') + (text[len - 2] == '=');
	if (n > 0)
		key = pki_csr_key(der, n, NULL);
	free(der);
	return key;
}

/* NULL, or what is wrong; texts are borrowed from args. */
static const char *read_user(
	struct issue_user *user, const char **csr_out, json_t *args)
{
	json_t *groups = NULL;
	json_t *group;
	json_int_t ttl = 0;
	size_t i;

	if (json_unpack(args, "{s:s, s:s, s?o, s?I}", "user", &user->name,
		    "csr", csr_out, "groups", &groups, "ttl_s", &ttl) < 0)
		return "user or csr is missing, or an argument has the wrong "
		       "type";
	user->ttl_s = ttl;
	if (groups && !json_is_null(groups) && !json_is_array(groups))
		return "groups must be a list";
	if (json_array_size(groups) > IDENTITY_GROUPS_MAX)
		return "there are more than 32 groups";
	json_array_foreach(groups, i, group)
	{
		user->groups[i] = json_string_value(group);
		if (!user->groups[i])
			return "a group must be a text";
	}
	return issue_check_user(user);
}

/* ---- issuing ---- */

/* A certificate that waits for its end to be written down. */
struct issuing {
	struct authd *auth;
	struct ctl_call *call;
	json_t *answer;
	/* of the latest end under this user CA, and with this only host CA */
	char keys[2][128];
	unsigned key_count;
	unsigned at;
	int64_t until;
};

static void read_last(struct issuing *issuing);

static void finish(struct issuing *issuing, enum backend_status status)
{
	if (status == BACKEND_OK && ++issuing->at < issuing->key_count) {
		read_last(issuing);
		return;
	}
	if (status == BACKEND_OK) {
		metric_add(&issuing->auth->metrics, METRIC_USERS, 1);
		ctl_reply(issuing->call, json_incref(issuing->answer));
	} else {
		ctl_fail(issuing->call, "%s", backend_status_text(status));
	}
	json_decref(issuing->answer);
	free(issuing);
}

static void on_written(void *arg, enum backend_status status, uint64_t revision)
{
	struct issuing *issuing = arg;

	if (status == BACKEND_COMPARE_FAILED)
		read_last(issuing); /* another was issued meanwhile */
	else
		finish(issuing, status);
}

static int64_t last_of(const struct backend_range_result *result)
{
	char text[24] = "";

	if (result->count && result->kvs[0].len < sizeof(text))
		memcpy(text, result->kvs[0].value, result->kvs[0].len);
	return strtoll(text, NULL, 10);
}

static void on_last(void *arg, const struct backend_range_result *result)
{
	struct issuing *issuing = arg;
	const char *key = issuing->keys[issuing->at];
	char text[24];
	struct backend_compare same = {.kind = BACKEND_ABSENT, .key = key};
	struct backend_op op = {.kind = BACKEND_PUT, .key = key, .value = text};
	struct backend_txn txn = {&same, 1, &op, 1};

	if (result->status != BACKEND_OK || last_of(result) >= issuing->until) {
		finish(issuing, result->status);
		return;
	}
	if (result->count) {
		same.kind = BACKEND_MOD_REVISION;
		same.mod_revision = result->kvs[0].mod_revision;
	}
	op.len = (size_t)snprintf(
		text, sizeof(text), "%" PRId64, issuing->until);
	backend_txn(issuing->auth->backend, &txn, on_written, issuing);
}

static void read_last(struct issuing *issuing)
{
	struct backend_range range = {.prefix = issuing->keys[issuing->at],
		.exact = true,
		.limit = 1};

	backend_range(issuing->auth->backend, &range, on_last, issuing);
}

static void hand_out(struct authd *auth, struct ctl_call *call,
	const struct issue_user *user, const char *chain)
{
	const struct ca_pair *cas = auth->cas;
	struct issuing *issuing = xcalloc(1, sizeof(*issuing));

	issuing->auth = auth;
	issuing->call = call;
	issuing->answer = json_pack("{s:s, s:s, s:s, s:s}", "cert_chain", chain,
		"host_ca", cas->host.bundle, "user_ca", cas->user.bundle,
		"cluster_name", auth->conf->cluster_name);
	issuing->until = authd_time() +
			 (user->ttl_s ? user->ttl_s : ISSUE_USER_DEFAULT_S);
	snprintf(issuing->keys[0], sizeof(issuing->keys[0]),
		SURVEY_USERS_PREFIX "%s", cas->user.active.pin);
	snprintf(issuing->keys[1], sizeof(issuing->keys[1]),
		SURVEY_HOLDERS_PREFIX "%s", cas->host.active.pin);
	issuing->key_count = cas->host.other.cert ? 1 : 2;
	read_last(issuing);
}

void control_identity_issue(struct ctl_call *call, void *arg, json_t *args)
{
	struct authd *auth = arg;
	struct issue_user user = {0};
	const char *csr = "";
	const char *wrong = read_user(&user, &csr, args);
	EVP_PKEY *key;
	X509 *cert;
	char *chain;

	if (wrong) {
		ctl_fail(call, "%s", wrong);
		return;
	}
	key = request_key(csr);
	if (!key) {
		ctl_fail(call, "csr is not a signing request in base64");
		return;
	}
	cert = issue_user(
		&auth->cas->user.active, &user, key, authd_time(), NULL);
	chain = cert ? issue_chain(cert, &auth->cas->user) : NULL;
	if (chain) {
		log_info("user certificate issued: user=%s groups=%zu "
			 "ttl_s=%lld",
			user.name,
			json_array_size(json_object_get(args, "groups")),
			(long long)(user.ttl_s ? user.ttl_s
					       : ISSUE_USER_DEFAULT_S));
		hand_out(auth, call, &user, chain);
	} else {
		ctl_fail(call, "the certificate could not be made");
	}
	free(chain);
	X509_free(cert);
	EVP_PKEY_free(key);
}
