/* SPDX-License-Identifier: Apache-2.0 */
/* A queue of bytes gives back what was put in, and its memory when empty. */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include "shared/tunnel_queue.h"

static void test_first_in_first_out_in_odd_pieces(void **state)
{
	struct tunnel_queue queue = {0};
	uint32_t in = 0;
	uint32_t out = 0;

	for (int round = 0; round < 3000; round++) {
		uint8_t bytes[97];
		size_t put = (size_t)(round * 31 % 97);
		size_t take;

		for (size_t i = 0; i < put; i++)
			bytes[i] = (uint8_t)in++;
		assert_int_equal(tunnel_queue_append(&queue, bytes, put), 0);
		take = (size_t)(round * 17 % 95);
		if (take > queue.len)
			take = queue.len;
		for (size_t i = 0; i < take; i++)
			assert_int_equal(
				tunnel_queue_head(&queue)[i], (uint8_t)out++);
		tunnel_queue_drop(&queue, take);
		assert_int_equal(queue.len, in - out);
	}
	tunnel_queue_clear(&queue);
}

static void test_empty_holds_no_memory(void **state)
{
	struct tunnel_queue queue = {0};

	assert_int_equal(tunnel_queue_append(&queue, "", 0), 0);
	assert_null(queue.data);
	assert_int_equal(tunnel_queue_append(&queue, "abc", 3), 0);
	assert_non_null(queue.data);
	tunnel_queue_drop(&queue, 3);
	assert_null(queue.data);
}

/* A queue that is always being drained a little behind stays small. */
static void test_steady_flow_does_not_grow(void **state)
{
	struct tunnel_queue queue = {0};
	static uint8_t bytes[1000];

	tunnel_queue_append(&queue, bytes, sizeof(bytes));
	for (int i = 0; i < 10000; i++) {
		tunnel_queue_append(&queue, bytes, sizeof(bytes));
		tunnel_queue_drop(&queue, sizeof(bytes));
	}
	assert_true(queue.size <= 8192);
	tunnel_queue_clear(&queue);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_in_first_out_in_odd_pieces),
		cmocka_unit_test(test_empty_holds_no_memory),
		cmocka_unit_test(test_steady_flow_does_not_grow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
