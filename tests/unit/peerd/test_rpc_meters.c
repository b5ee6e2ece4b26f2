/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/rpc_meters: calls under the reference's names. */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "peerd/rpc_meters.h"

static char *text_of(const struct rpc_meters *meters)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	rpc_meters_text(meters, out);
	fclose(out);
	return text;
}

static void check_line(const char *text, const char *line)
{
	const char *found = strstr(text, line);

	if (!found || found[strlen(line)] != '\n' ||
		(found != text && found[-1] != '\n'))
		fail_msg("no line: %s", line);
}

#define DIAL "{service=\"proto.ProxyService\",method=\"DialNode\""
#define DIAL_HANDLER "{service=\"proto.ProxyService\",handler=\"DialNode\""

static void a_call_is_under_way_and_then_counted_once(void **state)
{
	static struct rpc_meters meters;
	struct rpc_meter *meter = rpc_meter(&meters, RPC_CLIENT, RPC_DIAL);
	struct rpc_span span = {0}, other = {0};
	char *text;

	rpc_span_start(&span, meter);
	rpc_span_start(&other, meter);
	rpc_span_end(&span, GRPC_STATUS_UNAVAILABLE);
	rpc_span_end(&span, GRPC_STATUS_UNAVAILABLE);
	text = text_of(&meters);
	check_line(text, "proxy_peer_client_rpc" DIAL "} 1");
	check_line(text,
		"proxy_peer_client_rpc_total" DIAL ",code=\"Unavailable\"} 1");
	check_line(text, "proxy_peer_client_rpc_total" DIAL ",code=\"OK\"} 0");
	check_line(text,
		"proxy_peer_client_rpc_duration_seconds_count" DIAL_HANDLER
		",code=\"Unavailable\"} 1");
	check_line(text, "proxy_peer_server_rpc" DIAL "} 0");
	free(text);
}

static void a_code_that_nobody_knows_is_unknown(void **state)
{
	static struct rpc_meters meters;
	struct rpc_span span = {0};
	char *text;

	rpc_span_start(&span, rpc_meter(&meters, RPC_SERVER, RPC_DIAL));
	rpc_span_end(&span, (grpc_status_code)77);
	text = text_of(&meters);
	check_line(text,
		"proxy_peer_server_rpc_total" DIAL ",code=\"Unknown\"} 1");
	free(text);
}

static void what_is_not_counted_may_end(void **state)
{
	struct rpc_span span = {0};

	rpc_span_end(&span, GRPC_STATUS_OK);
	assert_int_equal(span.started_us, 0);
}

static void sizes_go_up_to_64_kib(void **state)
{
	static struct rpc_meters meters;
	struct rpc_meter *meter = rpc_meter(&meters, RPC_SERVER, RPC_DIAL);
	char *text;

	rpc_meter_sent(meter, 65537);
	rpc_meter_received(meter, 16388);
	text = text_of(&meters);
	check_line(text,
		"proxy_peer_server_message_sent_size_bucket" DIAL_HANDLER
		",le=\"65536\"} 0");
	check_line(text,
		"proxy_peer_server_message_sent_size_bucket" DIAL_HANDLER
		",le=\"+Inf\"} 1");
	check_line(text,
		"proxy_peer_server_message_received_size_bucket" DIAL_HANDLER
		",le=\"16384\"} 0");
	check_line(text,
		"proxy_peer_server_message_received_size_bucket" DIAL_HANDLER
		",le=\"32768\"} 1");
	check_line(text,
		"proxy_peer_server_message_received_size_sum" DIAL_HANDLER
		"} 16388");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call_is_under_way_and_then_counted_once),
		cmocka_unit_test(a_code_that_nobody_knows_is_unknown),
		cmocka_unit_test(what_is_not_counted_may_end),
		cmocka_unit_test(sizes_go_up_to_64_kib),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
