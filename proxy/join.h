/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The agents' join and renewal: JSON as they send it to 3080 and protobuf as
 * routed passes it on to authd. Pure; the bytes come from strangers.
 *
 *   POST /v1/agent/join   {"token", "host_uuid", "name", "csr": base64 of DER}
 *   POST /v1/agent/renew  {"cert": base64 of DER, "csr": base64 of DER}
 *   200                   {"cert_chain", "host_ca", "user_ca", "cluster_name"}
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOIN_BODY_MAX 32768

/* A packed JoinRequest or RenewRequest (gives; wipe() and free(), it may hold a
 * token), or NULL and *reason_out, a static text. */
uint8_t *join_request_pack(bool renew, const void *body, size_t len,
	size_t *len_out, const char **reason_out);

/* The JSON of a packed JoinResponse; gives, or NULL when it is not one. */
char *join_response_to_json(const uint8_t *packed, size_t len);

/* The HTTP status for authd's gRPC status (not 0). */
int join_http_status(uint32_t grpc_status);
