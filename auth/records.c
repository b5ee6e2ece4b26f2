/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks what a proxy wants to write and translates between records and the
 * store's keys, see records.h. What a newcomer gets wrong: what one proxy
 * publishes lands in every other proxy's cache and decides where connections
 * go, so each field has a bound and each id a form here, at the only gate.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/records.h"
#include "shared/alloc.h"
#include "shared/identity.h"

#define TEXT_MAX 256 /* a label's value */
#define ADDRESSES_MAX 16
#define LABELS_MAX 64
#define SERVICES_MAX 256 /* shared/registration.h */

void records_proxy_key(const char *proxy, records_key out)
{
	snprintf(out, RECORDS_KEY_MAX, "pub/proxy/%s", proxy);
}

void records_tunnel_key(const char *agent, const char *proxy, records_key out)
{
	snprintf(out, RECORDS_KEY_MAX, "pub/tunnel/%s/%s", agent, proxy);
}

void records_agent_prefix(const char *agent, records_key out)
{
	snprintf(out, RECORDS_KEY_MAX, "pub/tunnel/%s/", agent);
}

void records_epoch_key(const char *proxy, records_key out)
{
	snprintf(out, RECORDS_KEY_MAX, "secret/epoch/%s", proxy);
}

void records_lease_key(const char *proxy, uint64_t lease, records_key out)
{
	snprintf(out, RECORDS_KEY_MAX, "secret/lease/%s/%016" PRIx64, proxy,
		lease);
}

void records_leases_prefix(const char *proxy, records_key out)
{
	snprintf(out, RECORDS_KEY_MAX, "secret/lease/%s/", proxy);
}

void records_epoch_text(uint64_t epoch, char out[24])
{
	snprintf(out, 24, "%" PRIu64, epoch);
}

uint64_t records_epoch_parse(const uint8_t *text, size_t len)
{
	char copy[24];

	if (len >= sizeof(copy))
		return 0;
	memcpy(copy, text, len);
	copy[len] = '\0';
	return strtoull(copy, NULL, 10);
}

/* ---- checks ---- */

static bool text_is_plain(const char *text)
{
	size_t len = strlen(text);

	if (len > TEXT_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			return false;
	return true;
}

static bool texts_are_plain(char **texts, size_t count)
{
	if (count > ADDRESSES_MAX)
		return false;
	for (size_t i = 0; i < count; i++)
		if (!text_is_plain(texts[i]))
			return false;
	return true;
}

bool records_are_own(
	const Peerway__Auth__PublishRequest *request, const char *proxy)
{
	if (request->proxy && strcmp(request->proxy->id, proxy))
		return false;
	for (size_t i = 0; i < request->n_put; i++)
		if (strcmp(request->put[i]->proxy_id, proxy))
			return false;
	return true;
}

static const char *check_proxy(const Peerway__Record__ProxyRecord *proxy)
{
	if (!text_is_plain(proxy->hostname) ||
		!text_is_plain(proxy->peer_addr) ||
		!text_is_plain(proxy->version) ||
		!text_is_plain(proxy->group) || !text_is_plain(proxy->region) ||
		!text_is_plain(proxy->zone) ||
		!texts_are_plain(proxy->public_addr, proxy->n_public_addr) ||
		!texts_are_plain(proxy->tunnel_addr, proxy->n_tunnel_addr))
		return "a text of the proxy record is too long or has "
		       "control characters";
	if (protobuf_c_message_get_packed_size(&proxy->base) + 16 >
		RECORDS_SIZE_MAX)
		return "the proxy record is too large";
	return NULL;
}

static bool service_is_valid(const Peerway__Record__Service *service)
{
	return identity_name_is_valid(service->name) && service->type[0] &&
	       text_is_plain(service->type) && service->port <= 65535;
}

static const char *check_tunnel(const Peerway__Record__TunnelRecord *tunnel)
{
	if (!identity_uuid_is_valid(tunnel->agent_id))
		return "an agent id is no uuid";
	if (!identity_name_is_valid(tunnel->name))
		return "an agent name is not valid";
	if (tunnel->n_labels > LABELS_MAX || tunnel->n_services > SERVICES_MAX)
		return "an agent has too many labels or services";
	for (size_t i = 0; i < tunnel->n_services; i++)
		if (!service_is_valid(tunnel->services[i]))
			return "a service is not valid";
	for (size_t i = 0; i < tunnel->n_labels; i++)
		if (!text_is_plain(tunnel->labels[i]->name) ||
			!text_is_plain(tunnel->labels[i]->value))
			return "a label is not valid";
	if (protobuf_c_message_get_packed_size(&tunnel->base) >
		RECORDS_SIZE_MAX)
		return "a tunnel record is too large";
	return NULL;
}

static const char *check(
	const Peerway__Auth__PublishRequest *request, const char *own)
{
	const char *reason = NULL;

	if (!records_are_own(request, own))
		return "a proxy writes its own records only";
	if (!request->lease_id || request->lease_id > INT64_MAX ||
		!request->epoch)
		return "lease and epoch are missing";
	if (request->n_put + request->n_remove_agent_id > RECORDS_BATCH_MAX)
		return "too many records in one batch";
	if (request->proxy)
		reason = check_proxy(request->proxy);
	for (size_t i = 0; !reason && i < request->n_put; i++)
		reason = check_tunnel(request->put[i]);
	for (size_t i = 0; !reason && i < request->n_remove_agent_id; i++)
		if (!identity_uuid_is_valid(request->remove_agent_id[i]))
			reason = "an agent id is no uuid";
	return reason;
}

/* ---- the transaction ---- */

static void *pack(const ProtobufCMessage *message, size_t *len_out)
{
	uint8_t *value =
		xcalloc(1, protobuf_c_message_get_packed_size(message) + 1);

	*len_out = protobuf_c_message_pack(message, value);
	return value;
}

/* The next operation, with room for its key. */
static struct backend_op *add(struct records_batch *batch, char **key_out)
{
	struct backend_op *op = &batch->ops[batch->count];

	*key_out = batch->keys[batch->count++];
	op->key = *key_out;
	return op;
}

static void add_put(struct records_batch *batch, const char *agent,
	const char *proxy, const ProtobufCMessage *message, uint64_t lease)
{
	char *key;
	struct backend_op *op = add(batch, &key);

	if (agent)
		records_tunnel_key(agent, proxy, key);
	else
		records_proxy_key(proxy, key);
	op->kind = BACKEND_PUT;
	op->value = pack(message, &op->len);
	op->lease = lease;
}

static void add_compares(struct records_batch *batch,
	const Peerway__Auth__PublishRequest *request, const char *proxy)
{
	char *owner_key = batch->keys[BACKEND_OPS_MAX];
	char *epoch_key = batch->keys[BACKEND_OPS_MAX + 1];

	records_lease_key(proxy, request->lease_id, owner_key);
	records_epoch_key(proxy, epoch_key);
	records_epoch_text(request->epoch, batch->epoch);
	batch->compares[0] = (struct backend_compare){.kind = BACKEND_VALUE,
		.key = owner_key,
		.value = proxy,
		.len = strlen(proxy)};
	batch->compares[1] = (struct backend_compare){.kind = BACKEND_VALUE,
		.key = epoch_key,
		.value = batch->epoch,
		.len = strlen(batch->epoch)};
}

static bool has_duplicates(const struct records_batch *batch)
{
	for (size_t i = 0; i < batch->count; i++)
		for (size_t j = 0; j < i; j++)
			if (!strcmp(batch->keys[i], batch->keys[j]))
				return true;
	return false;
}

static void fill(struct records_batch *batch,
	const Peerway__Auth__PublishRequest *request, const char *proxy)
{
	char *key;

	add_compares(batch, request, proxy);
	if (request->proxy) {
		Peerway__Record__ProxyRecord record = *request->proxy;

		record.epoch = request->epoch;
		add_put(batch, NULL, proxy, &record.base, request->lease_id);
	}
	for (size_t i = 0; i < request->n_put; i++)
		add_put(batch, request->put[i]->agent_id, proxy,
			&request->put[i]->base, request->lease_id);
	for (size_t i = 0; i < request->n_remove_agent_id; i++) {
		struct backend_op *op = add(batch, &key);

		records_tunnel_key(request->remove_agent_id[i], proxy, key);
		op->kind = BACKEND_DELETE;
	}
	batch->txn = (struct backend_txn){
		batch->compares, 2, batch->ops, batch->count};
}

struct records_batch *records_batch_new(
	const Peerway__Auth__PublishRequest *request, const char *proxy,
	const char **reason_out)
{
	struct records_batch *batch;

	*reason_out = check(request, proxy);
	if (*reason_out)
		return NULL;
	batch = xcalloc(1, sizeof(*batch));
	fill(batch, request, proxy);
	if (!has_duplicates(batch))
		return batch;
	records_batch_free(batch);
	*reason_out = "an agent stands twice in one batch";
	return NULL;
}

void records_batch_free(struct records_batch *batch)
{
	if (!batch)
		return;
	for (size_t i = 0; i < batch->count; i++)
		free((void *)batch->ops[i].value);
	free(batch);
}

/* ---- changes ---- */

/* What stands behind prefix in key, or NULL. */
static const char *behind(const char *key, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(key, prefix, len) ? NULL : key + len;
}

static bool tunnel_removed(const char *rest, Peerway__Auth__Change *out)
{
	const char *slash = strchr(rest, '/');
	Peerway__Auth__TunnelKey *key;

	if (!slash)
		return false;
	key = xcalloc(1, sizeof(*key));
	peerway__auth__tunnel_key__init(key);
	key->agent_id = xstrndup(rest, slash - rest);
	key->proxy_id = xstrdup(slash + 1);
	out->what_case = PEERWAY__AUTH__CHANGE__WHAT_TUNNEL_REMOVED;
	out->tunnel_removed = key;
	return true;
}

static bool removed(const char *key, Peerway__Auth__Change *out)
{
	const char *rest = behind(key, "pub/proxy/");

	if (rest) {
		out->what_case = PEERWAY__AUTH__CHANGE__WHAT_PROXY_REMOVED;
		out->proxy_removed = xstrdup(rest);
		return true;
	}
	rest = behind(key, "pub/tunnel/");
	return rest && tunnel_removed(rest, out);
}

bool records_change(const char *key, const uint8_t *value, size_t len,
	uint64_t revision, Peerway__Auth__Change *out)
{
	peerway__auth__change__init(out);
	out->revision = revision;
	if (!value)
		return removed(key, out);
	if (!strcmp(key, RECORDS_CONFIG)) {
		out->config = peerway__record__cluster_config__unpack(
			NULL, len, value);
		out->what_case = PEERWAY__AUTH__CHANGE__WHAT_CONFIG;
		return out->config != NULL;
	}
	if (behind(key, "pub/proxy/")) {
		out->proxy_put =
			peerway__record__proxy_record__unpack(NULL, len, value);
		out->what_case = PEERWAY__AUTH__CHANGE__WHAT_PROXY_PUT;
		return out->proxy_put != NULL;
	}
	if (!behind(key, "pub/tunnel/"))
		return false;
	out->tunnel_put =
		peerway__record__tunnel_record__unpack(NULL, len, value);
	out->what_case = PEERWAY__AUTH__CHANGE__WHAT_TUNNEL_PUT;
	return out->tunnel_put != NULL;
}

void records_change_deinit(Peerway__Auth__Change *change)
{
	switch (change->what_case) {
	case PEERWAY__AUTH__CHANGE__WHAT_CONFIG:
		protobuf_c_message_free_unpacked(
			(ProtobufCMessage *)change->config, NULL);
		break;
	case PEERWAY__AUTH__CHANGE__WHAT_PROXY_PUT:
		protobuf_c_message_free_unpacked(
			(ProtobufCMessage *)change->proxy_put, NULL);
		break;
	case PEERWAY__AUTH__CHANGE__WHAT_TUNNEL_PUT:
		protobuf_c_message_free_unpacked(
			(ProtobufCMessage *)change->tunnel_put, NULL);
		break;
	case PEERWAY__AUTH__CHANGE__WHAT_PROXY_REMOVED:
		free(change->proxy_removed);
		break;
	case PEERWAY__AUTH__CHANGE__WHAT_TUNNEL_REMOVED:
		free(change->tunnel_removed->agent_id);
		free(change->tunnel_removed->proxy_id);
		free(change->tunnel_removed);
		break;
	default:
		break;
	}
	change->what_case = PEERWAY__AUTH__CHANGE__WHAT__NOT_SET;
}
