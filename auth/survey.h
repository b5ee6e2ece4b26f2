/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Who has a certificate of which CA, out of the store: hosts as they were
 * written down when their certificate was issued, whether they are there now
 * (by the proxies' records and tunnels), and until when users' certificates of
 * each CA are good.
 */

#include "auth/authd.h"
#include "auth/host.h"

struct survey_host {
	enum identity_role role; /* Proxy or Node */
	char uuid[37];
	char name[IDENTITY_NAME_MAX]; /* agents only */
	char ca[80];		      /* pin; empty: before these were kept */
	int64_t not_after;	      /* Unix seconds; 0: unknown */
	bool online;
};

struct survey_users {
	char ca[80];
	int64_t last; /* the latest end of a certificate, Unix seconds */
};
struct survey_list {
	struct survey_users *items;
	size_t count;
};

struct survey {
	struct survey_host *hosts; /* proxies, then agents */
	size_t host_count;
	struct survey_list users;   /* by the user CA that issued */
	struct survey_list holders; /* by the only host CA they were given */
};

/* done: survey is given; NULL with an error (static). */
void survey_take(struct authd *auth,
	void (*done)(void *arg, struct survey *survey, const char *error),
	void *arg);
void survey_free(struct survey *survey);
/* Latest end of users' certificates of that CA; 0: none. */
int64_t survey_last(const struct survey_list *list, const char *ca);

#define SURVEY_USERS_PREFIX "secret/issued/user/"
#define SURVEY_HOLDERS_PREFIX "secret/issued/holder/"
