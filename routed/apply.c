/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of the watch's stream and of the records in it, without stream,
 * database or clock. Used by mirror.c; the record rules also by links.c for
 * what workers report.
 *
 * What is easily got wrong: a snapshot may come at any time (the revisions we
 * asked for were compacted, or the store was restored and has another id), and
 * its parts carry a store id that is not ours yet.
 */

#include <stdio.h>
#include <string.h>

#include "routed/apply.h"
#include "shared/identity.h"

#define SERVICES_MAX 256
#define LABELS_MAX 256
#define TEXT_MAX 1024
#define CA_MAX 16384	 /* PEM of two CAs is about 1,300 bytes */
#define RECORD_MAX 49152 /* packed; as authd's */

void apply_init(struct apply *apply, const char *store_id, uint64_t revision)
{
	memset(apply, 0, sizeof(*apply));
	snprintf(apply->store_id, sizeof(apply->store_id), "%s", store_id);
	apply->revision = revision;
}

static enum apply_step broken(const char **reason_out, const char *reason)
{
	*reason_out = reason;
	return APPLY_BROKEN;
}

enum apply_step apply_next(struct apply *apply,
	const Peerway__Auth__WatchResponse *message, const char **reason_out)
{
	if (strlen(message->store_id) >= sizeof(apply->store_id) ||
		message->store_id[0] == '\0')
		return broken(reason_out, "no usable store id");
	if (message->snapshot) {
		apply->gathering = !message->complete;
		if (apply->gathering)
			return APPLY_GATHER;
		snprintf(apply->store_id, sizeof(apply->store_id), "%s",
			message->store_id);
		apply->revision = message->revision;
		return APPLY_REPLACE;
	}
	if (apply->gathering)
		return broken(reason_out, "changes amid a snapshot");
	if (strcmp(message->store_id, apply->store_id) != 0)
		return broken(reason_out, "changes of another store");
	if (message->revision <= apply->revision)
		return APPLY_SKIP;
	apply->revision = message->revision;
	return APPLY_CHANGES;
}

/* ---- records ---- */

static bool text_is_fit(const char *text)
{
	return strlen(text) <= TEXT_MAX;
}

static bool services_are_fit(const Peerway__Record__TunnelRecord *record)
{
	if (record->n_services > SERVICES_MAX)
		return false;
	for (size_t i = 0; i < record->n_services; i++) {
		const Peerway__Record__Service *service = record->services[i];

		if (!identity_name_is_valid(service->name) ||
			!identity_name_is_valid(service->type) ||
			service->port > UINT16_MAX)
			return false;
	}
	return true;
}

bool apply_tunnel_is_fit(const Peerway__Record__TunnelRecord *record)
{
	if (protobuf_c_message_get_packed_size(&record->base) > RECORD_MAX ||
		!identity_uuid_is_valid(record->agent_id) ||
		!identity_uuid_is_valid(record->proxy_id) ||
		!identity_name_is_valid(record->name) ||
		record->n_labels > LABELS_MAX)
		return false;
	for (size_t i = 0; i < record->n_labels; i++) {
		if (!text_is_fit(record->labels[i]->name) ||
			!text_is_fit(record->labels[i]->value))
			return false;
	}
	return services_are_fit(record);
}

static bool proxy_is_fit(const Peerway__Record__ProxyRecord *record)
{
	return identity_uuid_is_valid(record->id) &&
	       text_is_fit(record->hostname) && strlen(record->peer_addr) < 300;
}

static bool config_is_fit(const Peerway__Record__ClusterConfig *config)
{
	return text_is_fit(config->cluster_name) &&
	       strlen(config->host_ca) <= CA_MAX &&
	       strlen(config->host_cross) <= CA_MAX &&
	       strlen(config->user_ca) <= CA_MAX &&
	       strlen(config->host_ca_id) < 80 &&
	       strlen(config->user_ca_id) < 80;
}

bool apply_is_fit(const Peerway__Auth__Change *change)
{
	switch (change->what_case) {
	case PEERWAY__AUTH__CHANGE__WHAT_CONFIG:
		return config_is_fit(change->config);
	case PEERWAY__AUTH__CHANGE__WHAT_PROXY_PUT:
		return proxy_is_fit(change->proxy_put);
	case PEERWAY__AUTH__CHANGE__WHAT_PROXY_REMOVED:
		return identity_uuid_is_valid(change->proxy_removed);
	case PEERWAY__AUTH__CHANGE__WHAT_TUNNEL_PUT:
		return apply_tunnel_is_fit(change->tunnel_put);
	case PEERWAY__AUTH__CHANGE__WHAT_TUNNEL_REMOVED:
		return identity_uuid_is_valid(
			       change->tunnel_removed->agent_id) &&
		       identity_uuid_is_valid(change->tunnel_removed->proxy_id);
	default:
		return false; /* of a newer authd */
	}
}
