/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registration JSON, both ways: agents write it, proxies read it.
 *
 * What one gets wrong: nothing here says who the agent is. agent_id and name
 * are claims until they were compared with its certificate.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/field.h"
#include "shared/registration.h"

static json_t *services_json(const struct registration *registration)
{
	json_t *list = json_array();

	for (size_t i = 0; i < registration->service_count; i++) {
		const struct registration_service *service =
			&registration->services[i];

		json_array_append_new(
			list, json_pack("{s:s, s:s, s:i}", "name",
				      service->name, "type", service->type,
				      "port", (int)service->port));
	}
	return list;
}

char *registration_to_json(const struct registration *registration)
{
	json_t *labels = json_object();
	json_t *document;
	char *text;

	for (size_t i = 0; i < registration->label_count; i++)
		json_object_set_new(labels, registration->labels[i].name,
			json_string(registration->labels[i].value));
	document = json_pack("{s:s, s:s, s:o, s:o}", "agent_id",
		registration->agent_id, "name", registration->name, "labels",
		labels, "services", services_json(registration));
	text = json_dumps(document, JSON_COMPACT);
	json_decref(document);
	return text;
}

static int read_labels(struct registration *out, const struct field *top)
{
	json_t *labels, *value;
	const char *name;
	int ret = field_object(top, "labels", REGISTRATION_LABELS_MAX, &labels);

	if (ret < 0 || !labels)
		return ret;
	out->labels =
		xcalloc(json_object_size(labels) + 1, sizeof(out->labels[0]));
	json_object_foreach(labels, name, value)
	{
		struct registration_label *label =
			&out->labels[out->label_count];
		struct field at = {labels, "labels.", top->error};
		/* The name as a value, for the same checks. */
		json_t *key = json_string(name);

		ret = field_value(
			&at, name, key, label->name, sizeof(label->name));
		json_decref(key);
		if (ret == 0 && !label->name[0])
			ret = field_fail(top, "labels", "has an empty name");
		if (ret == 0)
			ret = field_value(&at, name, value, label->value,
				sizeof(label->value));
		if (ret < 0)
			return ret;
		out->label_count++;
	}
	return 0;
}

static int read_service(struct registration *out, const struct field *at)
{
	struct registration_service *service =
		&out->services[out->service_count];
	uint64_t port = 0;
	int ret;

	ret = field_text(
		at, "name", true, service->name, sizeof(service->name));
	if (ret == 0 && !identity_name_is_valid(service->name))
		ret = field_fail(at, "name",
			"is not a name of a-z, 0-9 and - (1 to 63)");
	if (ret == 0 && registration_find(out, service->name))
		ret = field_fail(at, "name", "is there twice");
	if (ret == 0)
		ret = field_text(
			at, "type", true, service->type, sizeof(service->type));
	if (ret == 0 && !identity_name_is_valid(service->type))
		ret = field_fail(at, "type",
			"is not a name of a-z, 0-9 and - (1 to 31)");
	if (ret == 0)
		ret = field_number(at, "port", false, UINT16_MAX, &port);
	if (ret < 0)
		return ret;
	service->port = port;
	out->service_count++;
	return 0;
}

static int read_services(struct registration *out, const struct field *top)
{
	json_t *services, *value;
	size_t i;
	int ret = field_array(
		top, "services", REGISTRATION_SERVICES_MAX, &services);

	if (ret < 0 || !services)
		return ret;
	out->services = xcalloc(
		json_array_size(services) + 1, sizeof(out->services[0]));
	json_array_foreach(services, i, value)
	{
		char place[32];
		struct field at = {value, place, top->error};

		snprintf(place, sizeof(place), "services[%zu]", i);
		if (!json_is_object(value))
			return field_fail(top, place, "is not an object");
		strcat(place, ".");
		ret = read_service(out, &at);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int read_registration(struct registration *out, const struct field *top)
{
	int ret = field_text(
		top, "agent_id", true, out->agent_id, sizeof(out->agent_id));

	if (ret == 0 && !identity_uuid_is_valid(out->agent_id))
		ret = field_fail(top, "agent_id", "is not a uuid");
	if (ret == 0)
		ret = field_text(
			top, "name", true, out->name, sizeof(out->name));
	if (ret == 0 && !identity_name_is_valid(out->name))
		ret = field_fail(top, "name",
			"is not a name of a-z, 0-9 and - (1 to 63)");
	if (ret == 0)
		ret = read_labels(out, top);
	if (ret == 0)
		ret = read_services(out, top);
	return ret;
}

struct registration *registration_from_json(
	const char *text, size_t len, char **error_out)
{
	struct registration *out;
	char error[FIELD_ERROR_MAX];
	json_t *document = field_document(text, len, error);
	struct field top = {document, "", error};

	if (!document) {
		*error_out = xstrdup(error);
		return NULL;
	}
	out = xcalloc(1, sizeof(*out));
	if (read_registration(out, &top) < 0) {
		*error_out = xstrdup(error);
		registration_free(out);
		out = NULL;
	}
	json_decref(document);
	return out;
}

void registration_free(struct registration *registration)
{
	if (!registration)
		return;
	free(registration->labels);
	free(registration->services);
	free(registration);
}

const struct registration_service *registration_find(
	const struct registration *registration, const char *service)
{
	for (size_t i = 0; i < registration->service_count; i++)
		if (strcmp(registration->services[i].name, service) == 0)
			return &registration->services[i];
	return NULL;
}
