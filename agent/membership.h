/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How an agent becomes a member and stays one: it joins by token, renews at two
 * thirds of the certificate's life or when the CA is another, and follows what
 * proxies say of the CAs. What fails is tried again, with backoff, for ever.
 *
 * The certificate in use belongs to the owner; here it is only asked for.
 */

#include "shared/discovery.h"
#include "shared/loop.h"
#include "shared/registration.h"
#include "shared/tls.h"

struct https_proxy;
struct outage;
struct resolver;

struct membership_config {
	struct loop *loop;
	struct resolver *resolver;
	struct outage *outage;
	const char *cluster;
	const char *const *servers;
	size_t server_count;
	const struct https_proxy *https_proxy; /* NULL: none */
	uint32_t reconnect_max_ms;
	const char *directory; /* of the keystore */
	const char *token_file;
	const char *ca_pin;
	/* What is in use now; NULL: not joined yet. Borrowed. */
	struct tls_identity *(*identity)(void *arg);
	/* uuid and name to ask for. Borrowed. */
	const struct registration *(*registration)(void *arg);
	/* The keystore has something new: into use with it. 0, or -1 and
	 * *error_out (gives). */
	int (*load)(void *arg, char **error_out);
	void *arg;
};

struct membership;
/* Borrows what config points to. Does nothing until membership_start(). */
struct membership *membership_new(const struct membership_config *config);
void membership_free(struct membership *membership);
/* Other values for what config has of these names; borrowed until the next. */
void membership_set_join(struct membership *membership,
	uint32_t reconnect_max_ms, const char *token_file, const char *ca_pin);
void membership_start(struct membership *membership);
void membership_stop(struct membership *membership);

/* What a proxy, verified, said; only its words on CAs are heard. */
void membership_hear(
	struct membership *membership, const struct discovery *discovery);
/* If it fails or is under way: again, at once, as if nothing had failed. */
void membership_reconnect(struct membership *membership);
