/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What an agent says of itself, the JSON answer to GET /v1/agent and each line
 * of GET /v1/agent/events:
 *   {"agent_id": uuid, "name": "db-host-1", "labels": {"env": "staging"},
 *    "services": [{"name": "pg", "type": "db", "port": 5432}]}
 * Bounds: 64 labels, 256 services, text of 64 bytes (label values 256). Pure.
 */

#include <stddef.h>
#include <stdint.h>

#include "shared/identity.h"

#define REGISTRATION_LABELS_MAX 64
#define REGISTRATION_SERVICES_MAX 256

struct registration_label {
	char name[IDENTITY_NAME_MAX];
	char value[257];
};

struct registration_service {
	char name[IDENTITY_NAME_MAX];
	char type[32];
	uint16_t port;
};

struct registration {
	char agent_id[37];
	char name[IDENTITY_NAME_MAX];
	struct registration_label *labels;
	size_t label_count;
	struct registration_service *services;
	size_t service_count;
};

/* Gives JSON, to free(). */
char *registration_to_json(const struct registration *registration);
/* Gives, or NULL and *error_out (gives): the field and what is wrong. */
struct registration *registration_from_json(
	const char *text, size_t len, char **error_out);
void registration_free(struct registration *registration);
const struct registration_service *registration_find(
	const struct registration *registration, const char *service);
