/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads who somebody is out of a leaf certificate that the caller has already
 * had verified against the right CA; the CA is half of the identity and is not
 * looked at here. What a newcomer gets wrong: a subject may hold any number of
 * CN and O entries, of any string type, with NUL bytes inside, so nothing here
 * takes "the first" or a C string without having looked at the whole.
 */
#include <errno.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "shared/identity.h"
#include "shared/log.h"

#define AGENT_URI "peerway://agent/"
#define UUID_LEN 36

bool identity_name_is_valid(const char *name)
{
	size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");

	return len >= 1 && len < IDENTITY_NAME_MAX && name[len] == '\0';
}

static bool uuid_starts(const char *text, size_t len)
{
	if (len < UUID_LEN)
		return false;
	for (int i = 0; i < UUID_LEN; i++) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (text[i] != '-')
				return false;
		} else if (!text[i] || !strchr("0123456789abcdef", text[i])) {
			return false;
		}
	}
	return true;
}

bool identity_uuid_is_valid(const char *uuid)
{
	return strlen(uuid) == UUID_LEN && uuid_starts(uuid, UUID_LEN);
}

void identity_uuid_make(char out[37])
{
	unsigned char b[16];

	/* An id that is not random could be another host's. */
	if (RAND_bytes(b, sizeof(b)) != 1)
		fatal("no random bytes for a uuid");
	b[6] = (b[6] & 0x0f) | 0x40; /* RFC 4122: version 4 */
	b[8] = (b[8] & 0x3f) | 0x80;
	snprintf(out, 37,
		"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
		"%02x%02x%02x%02x%02x%02x",
		b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9],
		b[10], b[11], b[12], b[13], b[14], b[15]);
}

void identity_server_name(const char *cluster, char *out)
{
	size_t n = 0;

	for (const char *c = cluster; *c && n < 2 * 255; c++)
		n += snprintf(out + n, IDENTITY_SERVER_NAME_MAX - n, "%02x",
			(unsigned char)*c);
	snprintf(out + n, IDENTITY_SERVER_NAME_MAX - n,
		".teleport.cluster.local");
}

/* One subject entry as printable UTF-8 into out; false when it is empty, too
 * long, or holds NUL or other control characters. */
static bool entry_text(X509_NAME_ENTRY *entry, char *out, size_t size)
{
	unsigned char *utf8 = NULL;
	int len = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(entry));
	bool ok = len > 0 && (size_t)len < size;

	for (int i = 0; ok && i < len; i++)
		ok = utf8[i] >= ' ' && utf8[i] != 0x7f;
	if (ok) {
		memcpy(out, utf8, len);
		out[len] = '\0';
	}
	OPENSSL_free(utf8);
	return ok;
}

/* The only CN of the subject; NULL, or a static text saying what is wrong. */
static const char *subject_cn(X509_NAME *subject, char *out, size_t size)
{
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	X509_NAME_ENTRY *entry;

	if (at < 0)
		return "missing identity username";
	if (X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
		return "several common names";
	entry = X509_NAME_get_entry(subject, at);
	if (ASN1_STRING_length(X509_NAME_ENTRY_get_data(entry)) == 0)
		return "missing identity username";
	if (!entry_text(entry, out, size))
		return "bad characters or length in common name";
	return NULL;
}

/* All O entries in order; their number, or -1 with a reason. */
static int subject_organizations(X509_NAME *subject,
	char out[IDENTITY_GROUPS_MAX][IDENTITY_NAME_MAX],
	const char **reason_out)
{
	int at = -1;
	int count = 0;

	while ((at = X509_NAME_get_index_by_NID(
			subject, NID_organizationName, at)) >= 0) {
		if (count == IDENTITY_GROUPS_MAX) {
			*reason_out = "too many organizations";
			return -1;
		}
		if (!entry_text(X509_NAME_get_entry(subject, at), out[count],
			    IDENTITY_NAME_MAX)) {
			*reason_out = "bad characters or length in "
				      "organization";
			return -1;
		}
		count++;
	}
	return count;
}

static unsigned roles_of(
	char names[IDENTITY_GROUPS_MAX][IDENTITY_NAME_MAX], int count)
{
	unsigned roles = 0;

	for (int i = 0; i < count; i++) {
		if (!strcmp(names[i], "Proxy"))
			roles |= IDENTITY_PROXY;
		else if (!strcmp(names[i], "Auth"))
			roles |= IDENTITY_AUTH;
		else if (!strcmp(names[i], "Node"))
			roles |= IDENTITY_NODE;
	}
	return roles;
}

/* CN is <uuid>.<cluster>. */
static const char *split_cn(
	const char *cn, const char *cluster, struct host_identity *out)
{
	if (!uuid_starts(cn, strlen(cn)) || cn[UUID_LEN] != '.')
		return "common name is not <host uuid>.<cluster>";
	if (strcmp(cn + UUID_LEN + 1, cluster))
		return "certificate of another cluster";
	if (strlen(cluster) >= sizeof(out->cluster))
		return "cluster name too long";
	memcpy(out->uuid, cn, UUID_LEN);
	out->uuid[UUID_LEN] = '\0';
	strcpy(out->cluster, cluster);
	return NULL;
}

/* The agent's name from one URI; NULL also for a URI of somebody else's. */
static const char *take_agent_uri(
	const ASN1_STRING *uri, struct host_identity *out)
{
	const char *text = (const char *)ASN1_STRING_get0_data(uri);
	size_t len = ASN1_STRING_length(uri);
	size_t prefix = strlen(AGENT_URI);
	char name[IDENTITY_NAME_MAX];

	if (len < prefix || memcmp(text, AGENT_URI, prefix))
		return NULL;
	if (out->agent_name[0])
		return "several agent names";
	len -= prefix;
	if (len == 0 || len >= sizeof(name) || memchr(text + prefix, 0, len))
		return "bad agent name";
	memcpy(name, text + prefix, len);
	name[len] = '\0';
	if (!identity_name_is_valid(name))
		return "bad agent name";
	strcpy(out->agent_name, name);
	return NULL;
}

static const char *agent_name(X509 *leaf, struct host_identity *out)
{
	int critical = 0;
	GENERAL_NAMES *names =
		X509_get_ext_d2i(leaf, NID_subject_alt_name, &critical, NULL);
	const char *reason = NULL;

	if (!names)
		/* -1: there is none; else it is malformed or twice there */
		return critical == -1 ? NULL : "bad alternative names";
	for (int i = 0; !reason && i < sk_GENERAL_NAME_num(names); i++) {
		GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		if (name->type == GEN_URI)
			reason = take_agent_uri(
				name->d.uniformResourceIdentifier, out);
	}
	GENERAL_NAMES_free(names);
	return reason;
}

int identity_of_host(X509 *leaf, const char *cluster, struct host_identity *out,
	const char **reason_out)
{
	X509_NAME *subject = X509_get_subject_name(leaf);
	char roles[IDENTITY_GROUPS_MAX][IDENTITY_NAME_MAX];
	struct host_identity found = {0};
	char cn[512];
	int count;

	*reason_out = subject_cn(subject, cn, sizeof(cn));
	if (!*reason_out)
		*reason_out = split_cn(cn, cluster, &found);
	if (*reason_out)
		return -EBADMSG;
	count = subject_organizations(subject, roles, reason_out);
	if (count < 0)
		return -EBADMSG;
	found.roles = roles_of(roles, count);
	if (!found.roles)
		*reason_out = "no role in certificate";
	else if (found.roles & IDENTITY_NODE)
		*reason_out = agent_name(leaf, &found);
	if (*reason_out)
		return -EBADMSG;
	*out = found;
	return 0;
}

int identity_of_user(
	X509 *leaf, struct user_identity *out, const char **reason_out)
{
	X509_NAME *subject = X509_get_subject_name(leaf);
	struct user_identity found = {0};
	int count;

	*reason_out = subject_cn(subject, found.name, sizeof(found.name));
	if (*reason_out)
		return -EBADMSG;
	count = subject_organizations(subject, found.groups, reason_out);
	if (count < 0)
		return -EBADMSG;
	found.group_count = count;
	*out = found;
	return 0;
}
