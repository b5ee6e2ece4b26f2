/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From configuration to registration. conf_load() has checked every name and
 * address; what is cut here was too long for that.
 */
#include "agent/setup.h"

#include <stdio.h>

#include "shared/alloc.h"
#include "shared/sock.h"

static void set_labels(
	struct registration *registration, const struct conf_agent *conf)
{
	registration->labels = xcalloc(
		conf->labels_count + 1, sizeof(registration->labels[0]));
	registration->label_count = conf->labels_count;
	for (unsigned i = 0; i < conf->labels_count; i++) {
		struct registration_label *label = &registration->labels[i];

		snprintf(label->name, sizeof(label->name), "%s",
			conf->labels[i].name);
		snprintf(label->value, sizeof(label->value), "%s",
			conf->labels[i].value);
	}
}

static void set_services(
	struct registration *registration, const struct conf_agent *conf)
{
	registration->services = xcalloc(
		conf->services_count + 1, sizeof(registration->services[0]));
	registration->service_count = conf->services_count;
	for (unsigned i = 0; i < conf->services_count; i++) {
		struct registration_service *service =
			&registration->services[i];
		char host[256];

		snprintf(service->name, sizeof(service->name), "%s",
			conf->services[i].name);
		snprintf(service->type, sizeof(service->type), "%s",
			conf->services[i].type);
		if (sock_split(conf->services[i].addr, 0, host, sizeof(host),
			    &service->port) < 0)
			service->port = 0;
	}
}

struct registration *setup_registration(
	const struct conf_agent *conf, const char *agent_id)
{
	struct registration *registration = xcalloc(1, sizeof(*registration));

	snprintf(registration->agent_id, sizeof(registration->agent_id), "%s",
		agent_id);
	snprintf(registration->name, sizeof(registration->name), "%s",
		conf->name);
	set_labels(registration, conf);
	set_services(registration, conf);
	return registration;
}

const char **setup_addrs(const struct conf_agent *conf)
{
	const char **addrs = xcalloc(conf->services_count + 1, sizeof(char *));

	for (unsigned i = 0; i < conf->services_count; i++)
		addrs[i] = conf->services[i].addr;
	return addrs;
}
