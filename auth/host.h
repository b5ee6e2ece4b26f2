/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What authd remembers of a host it gave a certificate to, below
 * secret/host/<role>/<uuid>: whose key it is, and what the certificate says.
 * One host may be a proxy and have an agent too, under one uuid: each role has
 * its own record and key.
 */

#include <stddef.h>
#include <stdint.h>

#include "auth/names.h"
#include "shared/identity.h"

struct host {
	char uuid[37];
	enum identity_role role;
	char agent_name[IDENTITY_NAME_MAX]; /* role Node only */
	char pin[80];			    /* of its key */
	struct names names;		    /* besides the cluster's own */
	char ca[80];	   /* pin of the CA that issued its certificate */
	int64_t not_after; /* of that, Unix seconds; 0: unknown */
};

#define HOST_KEY_MAX 80
void host_key(
	enum identity_role role, const char *uuid, char out[HOST_KEY_MAX]);

/* "Proxy", "Auth", "Node", as certificates have it. */
const char *host_role_text(enum identity_role role);

/* JSON; gives. */
char *host_encode(const struct host *host);
/* 0 or -EBADMSG; out is to be deinitialised after success. */
int host_decode(const uint8_t *text, size_t len, struct host *out);
void host_deinit(struct host *host);
