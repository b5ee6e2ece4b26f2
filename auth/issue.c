/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fills in certificates, see issue.h. Pure but for the key's arithmetic. What a
 * newcomer gets wrong: an agent's certificate must never be able to serve. It
 * is an ordinary key in somebody's service host, and whoever holds it must not
 * pass for a proxy: no serverAuth, no DNS name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/issue.h"
#include "shared/alloc.h"
#include "shared/pki.h"

#define WILDCARD "*.teleport.cluster.local"
/* Clocks of new hosts are often a little behind. */
#define BACKDATE_S 3600 /* clocks may be wrong by so much */

/* Sorts the host's names into the two NULL-ended lists. */
static void sort_names(
	const struct names *names, const char **dns, const char **addresses)
{
	for (unsigned i = 0; i < names->count; i++) {
		if (names_is_address(names->items[i]))
			*addresses++ = names->items[i];
		else
			*dns++ = names->items[i];
	}
}

X509 *issue_host(const struct ca *ca, const char *cluster,
	const struct host *host, EVP_PKEY *key, int64_t now, char **error_out)
{
	const char *roles[] = {host_role_text(host->role), NULL};
	const char *dns[NAMES_MAX + 3] = {NULL};
	const char *addresses[NAMES_MAX + 1] = {NULL};
	char server_name[IDENTITY_SERVER_NAME_MAX];
	char *cn = xasprintf("%s.%s", host->uuid, cluster);
	char *uri = NULL;
	struct pki_template template = {
		.common_name = cn,
		.organizations = roles,
		.not_before = now - BACKDATE_S,
		.not_after = now + ISSUE_HOST_S,
	};
	X509 *cert;

	if (host->role == IDENTITY_NODE) {
		uri = xasprintf("peerway://agent/%s", host->agent_name);
		template.uri = uri;
	} else {
		identity_server_name(cluster, server_name);
		dns[0] = server_name;
		dns[1] = WILDCARD;
		sort_names(&host->names, dns + 2, addresses);
		template.dns_names = dns;
		template.ip_addresses = addresses;
		template.server = true;
	}
	cert = pki_issue(&template, key, ca->cert, ca->key, error_out);
	free(cn);
	free(uri);
	return cert;
}

static bool is_plain(const char *text, size_t max)
{
	size_t len = strlen(text);

	if (len == 0 || len > max || text[0] == ' ' || text[len - 1] == ' ')
		return false;
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

const char *issue_check_user(const struct issue_user *user)
{
	if (!is_plain(user->name, 255))
		return "the user name must have 1 to 255 printable characters";
	for (int i = 0; user->groups[i]; i++)
		if (!is_plain(user->groups[i], IDENTITY_NAME_MAX - 1))
			return "a group must have 1 to 63 printable "
			       "characters";
	if (user->ttl_s && (user->ttl_s < ISSUE_USER_MIN_S ||
				   user->ttl_s > ISSUE_USER_MAX_S))
		return "the lifetime must be between 60 s and 30 days";
	return NULL;
}

X509 *issue_user(const struct ca *ca, const struct issue_user *user,
	EVP_PKEY *key, int64_t now, char **error_out)
{
	int64_t ttl = user->ttl_s ? user->ttl_s : ISSUE_USER_DEFAULT_S;
	struct pki_template template = {
		.common_name = user->name,
		.organizations = user->groups,
		.not_before = now - BACKDATE_S,
		.not_after = now + ttl,
	};

	return pki_issue(&template, key, ca->cert, ca->key, error_out);
}

char *issue_chain(X509 *cert, const struct ca_set *set)
{
	char *pem = pki_cert_to_pem(cert);
	/* the cross certificate first: verifiers take the first of a key */
	char *chain = pem ? xasprintf("%s%s%s", pem,
				    set->cross ? set->cross : "", set->bundle)
			  : NULL;

	free(pem);
	return chain;
}
