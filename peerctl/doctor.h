/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What doctor.c runs on a host: a table of checks, each of which adds findings.
 * A finding is one line of what was found and, unless all is well, one of what
 * to do. The files doctor_*.c have a kind of check each; nobody else needs
 * this, but diag.c, which keeps the findings.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "peerctl/options.h"
#include "peerctl/status.h"
#include "shared/tls.h"

/* For every question over a network, and to a daemon. */
#define DOCTOR_WAIT_MS 5000

enum doctor_state { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL, DOCTOR_STATES };

struct doctor {
	struct options *options;
	const struct conf *conf;
	struct answers answers;	       /* to `status` */
	struct tls_identity *identity; /* of the host; NULL: none */
	int64_t now;		       /* Unix seconds */
	const char *check;	       /* that runs */
	/* {"check", "state": "ok", "warn", "fail", "what", "do": or null} */
	json_t *findings;
	unsigned counts[DOCTOR_STATES];
};

/* Runs all checks of conf's services. options and conf are borrowed. */
void doctor_init(struct doctor *doctor, struct options *options,
	const struct conf *conf);
void doctor_run(struct doctor *doctor);
void doctor_deinit(struct doctor *doctor);
/* The findings and how many of each state; gives. */
json_t *doctor_as_json(const struct doctor *doctor);

/* Adds a finding; takes both texts (advice NULL: nothing to do). */
void doctor_add(struct doctor *doctor, enum doctor_state state, char *what,
	char *advice);
/* Whether the running check has found nothing but good so far, for its one
 * line when all is well. */
bool doctor_all_well(const struct doctor *doctor);

/* The processes of a daemon ("proxy": parent, then workers) as its status says;
 * how many, 0 when it did not answer. */
unsigned doctor_pids(
	const struct doctor *doctor, int daemon, pid_t *pids, unsigned max);

/* ---- the checks ---- */

void doctor_check_daemons(struct doctor *doctor);
void doctor_check_descriptors(struct doctor *doctor);
void doctor_check_kernel(struct doctor *doctor);
void doctor_check_clock(struct doctor *doctor);
void doctor_check_directories(struct doctor *doctor);
void doctor_check_ports(struct doctor *doctor);
void doctor_check_names(struct doctor *doctor);
void doctor_check_certificates(struct doctor *doctor);
void doctor_check_auth(struct doctor *doctor);
void doctor_check_peers(struct doctor *doctor);
void doctor_check_proxies(struct doctor *doctor);

/* ---- pure ---- */

/* Descriptors that a worker of proxy may need with these limits. */
uint64_t doctor_worker_descriptors(const struct conf_proxy *proxy);
/* "0 1 2 ..." of /proc/sys: the index-th number; -1: there is none. */
int64_t doctor_sysctl_number(const char *text, unsigned index);
