/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The DialRequest that opens a stream between two proxies: made, read and
 * checked, with the texts and codes of the reference. Pure.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "peer.pb-c.h"

/* A first frame larger than this is no dial request. */
#define REQUEST_FRAME_MAX 32768

/* The gRPC status codes that peerd gives and understands. */
enum request_status {
	REQUEST_OK = 0,
	REQUEST_INVALID = 3,
};

struct request {
	Proto__Frame *frame; /* owns the texts below */
	const char *node_id;
	const char *type;	 /* service type, may be empty */
	const char *source;	 /* client's host:port */
	const char *destination; /* see request_service() */
	const char *cluster;	 /* of node_id; may be empty */
	char agent_id[64];	 /* of node_id; cut short: matches no agent */
};

/*
 * Reads the first frame of a stream. REQUEST_OK and *out (release with
 * request_deinit()), or the status and *text_out (gives, to free()).
 */
int request_parse(
	const uint8_t *frame, size_t len, struct request *out, char **text_out);
void request_deinit(struct request *request);

/* Splits at the first dot: left the host's id, right the cluster's name (*rest
 * points into node_id; empty when there is no dot). False when the left side
 * is empty. A longer id is cut off. */
bool request_split_node_id(
	const char *node_id, char *id_out, size_t id_size, const char **rest);

/*
 * What the destination selects: "<service>:<port>" a service by name; empty or
 * "@local-node" the only service of the type (*service_out is empty). Never an
 * address to connect to. False: no service can have this name.
 */
bool request_service(const char *destination, char *service_out,
	size_t service_size, uint32_t *port_out);

struct request_fields {
	const char *agent_id;
	const char *cluster;
	const char *type;
	const char *source;
	const char *service;
	uint32_t port;
};
/* The first frame for these; gives, to free(). */
uint8_t *request_make(const struct request_fields *fields, size_t *len_out);
