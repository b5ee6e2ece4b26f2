/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Who a verified leaf certificate names: (CA, CN, O), never a header or a
 * message (peering-reference 3).
 *
 *   host CA: CN <host uuid>.<cluster>, O = Proxy, Auth or Node (an agent)
 *   user CA: CN <user>, O = groups
 */

#include <openssl/x509.h>
#include <stdbool.h>

#define IDENTITY_NAME_MAX 64
#define IDENTITY_GROUPS_MAX 32

enum identity_role {
	IDENTITY_NONE = 0,
	IDENTITY_PROXY = 1 << 0,
	IDENTITY_AUTH = 1 << 1,
	IDENTITY_NODE = 1 << 2,
};

struct host_identity {
	unsigned roles; /* of enum identity_role */
	char uuid[37];
	char cluster[256];
	char agent_name[IDENTITY_NAME_MAX]; /* URI SAN, agents only */
};

struct user_identity {
	char name[256];
	char groups[IDENTITY_GROUPS_MAX][IDENTITY_NAME_MAX];
	unsigned group_count;
};

/* Of a leaf that was verified against the host CA (user CA). 0, or -EBADMSG
 * with *reason_out a static text. The cluster must be the one given. */
int identity_of_host(X509 *leaf, const char *cluster, struct host_identity *out,
	const char **reason_out);
int identity_of_user(
	X509 *leaf, struct user_identity *out, const char **reason_out);

/* hex(cluster).teleport.cluster.local, the DNS name by which proxies and auth
 * servers are verified whatever address they are dialed at. out: 600 bytes. */
#define IDENTITY_SERVER_NAME_MAX 600
void identity_server_name(const char *cluster, char *out);

/* A name of one label, [a-z0-9-]{1,63}. */
bool identity_name_is_valid(const char *name);
/* 8-4-4-4-12 lower-case hex. */
bool identity_uuid_is_valid(const char *uuid);
void identity_uuid_make(char out[37]);
