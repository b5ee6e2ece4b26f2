/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Many agents in few processes, on the agent's own library: each has its own
 * key, certificate, name, uuid and TCP connections. They stand for as many
 * machines, so they run at a low priority.
 */

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdatomic.h>
#include <stdbool.h>

#define SWARM_PROXIES_MAX 64
#define SWARM_PROCESSES_MAX 64

struct swarm_options {
	const char *cluster;
	const char *ca; /* PEM files of the host CA */
	const char *ca_key;
	const char *proxies[SWARM_PROXIES_MAX];
	unsigned proxy_count;
	const char *prefix;  /* of names: prefix and number */
	const char *service; /* host:port, announced as "echo" */
	const char *region;
	const char *zone;
	unsigned count;
	unsigned first; /* number of the first agent */
	unsigned processes;
};

/* What the processes tell the first one, in memory that they share. */
struct swarm_counts {
	_Atomic unsigned agents;  /* that exist */
	_Atomic unsigned ready;	  /* that have a tunnel */
	_Atomic unsigned tunnels; /* that are ready */
	_Atomic long opened;	  /* since the start */
	_Atomic long failed;	  /* attempts that gave none */
	_Atomic long busy;	  /* of them: told to come back later */
};

/* Runs agents first to first + count - 1 of options until SIGTERM; the exit
 * status. counts is written a few times a second. */
int swarm_run(const struct swarm_options *options, unsigned first,
	unsigned count, struct swarm_counts *counts);
