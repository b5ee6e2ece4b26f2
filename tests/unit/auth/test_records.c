/* SPDX-License-Identifier: Apache-2.0 */
/* What a proxy may write, how it lies in the store, and how changes read. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/records.h"
#include "shared/alloc.h"

#define OWN "11111111-1111-4111-8111-111111111111"
#define OTHER "22222222-2222-4222-8222-222222222222"
#define AGENT "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
#define AGENT2 "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
/* Generated structs want texts they could write to. */
#define TEXT(literal) ((char *)(uintptr_t)(literal))

/* A request with everything in it that tests change. */
struct request {
	Peerway__Auth__PublishRequest request;
	Peerway__Record__ProxyRecord proxy;
	Peerway__Record__TunnelRecord tunnel;
	Peerway__Record__TunnelRecord *put[1];
	Peerway__Record__Service service;
	Peerway__Record__Service *services[1];
	Peerway__Record__Label label;
	Peerway__Record__Label *labels[1];
	char *remove[1];
};

static void request_init(struct request *r)
{
	peerway__auth__publish_request__init(&r->request);
	peerway__record__proxy_record__init(&r->proxy);
	peerway__record__tunnel_record__init(&r->tunnel);
	peerway__record__service__init(&r->service);
	peerway__record__label__init(&r->label);
	r->proxy.id = TEXT(OWN);
	r->service.name = TEXT("ssh");
	r->service.type = TEXT("node");
	r->service.port = 22;
	r->services[0] = &r->service;
	r->label.name = TEXT("env");
	r->label.value = TEXT("staging");
	r->labels[0] = &r->label;
	r->tunnel.agent_id = TEXT(AGENT);
	r->tunnel.proxy_id = TEXT(OWN);
	r->tunnel.name = TEXT("db-1");
	r->tunnel.services = r->services;
	r->tunnel.n_services = 1;
	r->tunnel.labels = r->labels;
	r->tunnel.n_labels = 1;
	r->put[0] = &r->tunnel;
	r->remove[0] = TEXT(AGENT2);
	r->request.lease_id = 0xabc;
	r->request.epoch = 7;
	r->request.proxy = &r->proxy;
	r->request.put = r->put;
	r->request.n_put = 1;
	r->request.remove_agent_id = r->remove;
	r->request.n_remove_agent_id = 1;
}

static void test_batch_is_one_guarded_transaction(void **state)
{
	struct request r;
	const char *reason;
	struct records_batch *batch;
	Peerway__Record__ProxyRecord *proxy;

	request_init(&r);
	r.proxy.epoch = 99; /* only the request's counts */
	batch = records_batch_new(&r.request, OWN, &reason);
	assert_non_null(batch);
	assert_null(reason);
	assert_int_equal(2, batch->txn.compare_count);
	assert_string_equal("secret/lease/" OWN "/0000000000000abc",
		batch->txn.compares[0].key);
	assert_int_equal(BACKEND_VALUE, batch->txn.compares[0].kind);
	assert_memory_equal(OWN, batch->txn.compares[0].value, 36);
	assert_string_equal("secret/epoch/" OWN, batch->txn.compares[1].key);
	assert_int_equal(1, batch->txn.compares[1].len);
	assert_memory_equal("7", batch->txn.compares[1].value, 1);

	assert_int_equal(3, batch->txn.op_count);
	assert_string_equal("pub/proxy/" OWN, batch->ops[0].key);
	assert_int_equal(0xabc, batch->ops[0].lease);
	proxy = peerway__record__proxy_record__unpack(
		NULL, batch->ops[0].len, batch->ops[0].value);
	assert_int_equal(7, proxy->epoch);
	peerway__record__proxy_record__free_unpacked(proxy, NULL);
	assert_string_equal("pub/tunnel/" AGENT "/" OWN, batch->ops[1].key);
	assert_int_equal(0xabc, batch->ops[1].lease);
	assert_int_equal(BACKEND_DELETE, batch->ops[2].kind);
	assert_string_equal("pub/tunnel/" AGENT2 "/" OWN, batch->ops[2].key);
	records_batch_free(batch);
	records_batch_free(NULL);
}

static void assert_refused(struct request *r, bool own)
{
	const char *reason = NULL;

	assert_null(records_batch_new(&r->request, OWN, &reason));
	assert_non_null(reason);
	assert_int_equal(own, records_are_own(&r->request, OWN));
	request_init(r);
}

static void test_records_of_others_are_refused(void **state)
{
	struct request r;

	request_init(&r);
	assert_true(records_are_own(&r.request, OWN));
	r.proxy.id = TEXT(OTHER);
	assert_refused(&r, false);
	r.tunnel.proxy_id = TEXT(OTHER);
	assert_refused(&r, false);
	r.tunnel.proxy_id = TEXT("");
	assert_refused(&r, false);
}

static void test_bad_fields_are_refused(void **state)
{
	struct request r;
	char text[300];
	char *addresses[17];

	memset(text, 'x', sizeof(text));
	text[257] = '\0';
	for (int i = 0; i < 17; i++)
		addresses[i] = TEXT("a:1");
	request_init(&r);
	r.request.lease_id = 0;
	assert_refused(&r, true);
	r.request.lease_id = (uint64_t)INT64_MAX + 1;
	assert_refused(&r, true);
	r.request.epoch = 0;
	assert_refused(&r, true);
	r.proxy.hostname = text;
	assert_refused(&r, true);
	r.proxy.zone = TEXT("a\nb");
	assert_refused(&r, true);
	r.proxy.public_addr = addresses;
	r.proxy.n_public_addr = 17;
	assert_refused(&r, true);
	r.tunnel.agent_id = TEXT("../../config");
	assert_refused(&r, true);
	r.tunnel.name = TEXT("Two.Labels");
	assert_refused(&r, true);
	r.service.name = TEXT("");
	assert_refused(&r, true);
	r.service.type = TEXT("");
	assert_refused(&r, true);
	r.service.port = 65536;
	assert_refused(&r, true);
	r.label.value = text;
	assert_refused(&r, true);
	r.remove[0] = TEXT("x");
	assert_refused(&r, true);
	r.remove[0] = TEXT(AGENT); /* put as well */
	assert_refused(&r, true);
}

static void test_batches_and_records_are_bounded(void **state)
{
	struct request r;
	char *many[RECORDS_BATCH_MAX + 1];
	Peerway__Record__Label *labels[64];
	Peerway__Record__Service *services[257];
	char value[257];
	const char *reason;
	struct records_batch *batch;

	request_init(&r);
	for (int i = 0; i <= RECORDS_BATCH_MAX; i++)
		many[i] = xasprintf("aaaaaaaa-aaaa-4aaa-9aaa-%012x", i);
	r.request.remove_agent_id = many;
	r.request.n_remove_agent_id = RECORDS_BATCH_MAX - 1;
	batch = records_batch_new(&r.request, OWN, &reason);
	assert_non_null(batch);
	assert_int_equal(BACKEND_OPS_MAX, batch->txn.op_count);
	records_batch_free(batch);
	r.request.n_remove_agent_id = RECORDS_BATCH_MAX;
	assert_refused(&r, true);
	for (int i = 0; i <= RECORDS_BATCH_MAX; i++)
		free(many[i]);

	/* the largest registration that an agent may make is stored */
	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	r.label.value = value;
	for (int i = 0; i < 64; i++)
		labels[i] = &r.label;
	r.tunnel.labels = labels;
	r.tunnel.n_labels = 64;
	for (int i = 0; i < 257; i++)
		services[i] = &r.service;
	r.tunnel.services = services;
	r.tunnel.n_services = 256;
	batch = records_batch_new(&r.request, OWN, &reason);
	assert_non_null(batch);
	records_batch_free(batch);
	r.service.type = value; /* 256 times */
	assert_refused(&r, true);
	r.tunnel.services = services;
	r.tunnel.n_services = 257;
	assert_refused(&r, true);
}

static bool change(const char *key, const uint8_t *value, size_t len,
	Peerway__Auth__Change *out)
{
	return records_change(key, value, len, 42, out);
}

static void test_puts_read_as_changes(void **state)
{
	struct request r;
	uint8_t packed[1024];
	size_t len;
	Peerway__Auth__Change out;

	request_init(&r);
	len = peerway__record__tunnel_record__pack(&r.tunnel, packed);
	assert_true(change("pub/tunnel/" AGENT "/" OWN, packed, len, &out));
	assert_int_equal(PEERWAY__AUTH__CHANGE__WHAT_TUNNEL_PUT, out.what_case);
	assert_int_equal(42, out.revision);
	assert_string_equal("db-1", out.tunnel_put->name);
	records_change_deinit(&out);
	len = peerway__record__proxy_record__pack(&r.proxy, packed);
	assert_true(change("pub/proxy/" OWN, packed, len, &out));
	assert_string_equal(OWN, out.proxy_put->id);
	records_change_deinit(&out);
	assert_true(change(RECORDS_CONFIG, packed, 0, &out));
	assert_int_equal(PEERWAY__AUTH__CHANGE__WHAT_CONFIG, out.what_case);
	records_change_deinit(&out);
}

static void test_removals_read_as_changes(void **state)
{
	Peerway__Auth__Change out;

	assert_true(change("pub/tunnel/" AGENT "/" OWN, NULL, 0, &out));
	assert_string_equal(AGENT, out.tunnel_removed->agent_id);
	assert_string_equal(OWN, out.tunnel_removed->proxy_id);
	records_change_deinit(&out);
	assert_true(change("pub/proxy/" OWN, NULL, 0, &out));
	assert_string_equal(OWN, out.proxy_removed);
	records_change_deinit(&out);
}

static void test_what_is_no_change(void **state)
{
	static const uint8_t junk[] = {0xff, 0xff, 0xff};
	Peerway__Auth__Change out;

	assert_false(change("secret/ca/host/key", junk, 3, &out));
	assert_false(change("secret/ca/host/key", NULL, 0, &out));
	assert_false(change("pub/other", NULL, 0, &out));
	assert_false(change("pub/tunnel/" AGENT, NULL, 0, &out));
	assert_false(change("pub/proxy/" OWN, junk, 3, &out));
	records_change_deinit(&out);
	assert_false(change(RECORDS_CONFIG, NULL, 0, &out));
}

static void test_epochs_are_numbers(void **state)
{
	char text[24];

	records_epoch_text(UINT64_MAX, text);
	assert_string_equal("18446744073709551615", text);
	assert_true(UINT64_MAX ==
		    records_epoch_parse((uint8_t *)text, strlen(text)));
	assert_int_equal(12, records_epoch_parse((uint8_t *)"123", 2));
	assert_int_equal(0, records_epoch_parse((uint8_t *)"", 0));
	memset(text, '1', sizeof(text));
	assert_int_equal(0, records_epoch_parse((uint8_t *)text, 24));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_batch_is_one_guarded_transaction),
		cmocka_unit_test(test_records_of_others_are_refused),
		cmocka_unit_test(test_bad_fields_are_refused),
		cmocka_unit_test(test_batches_and_records_are_bounded),
		cmocka_unit_test(test_puts_read_as_changes),
		cmocka_unit_test(test_removals_read_as_changes),
		cmocka_unit_test(test_what_is_no_change),
		cmocka_unit_test(test_epochs_are_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
