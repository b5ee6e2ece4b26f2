/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/backlog: bytes come out as they went in, whoever works when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>

#include "peerd/backlog.h"

#define TOTAL (4u << 20)

static void pieces_come_out_in_order(void **state)
{
	struct backlog backlog;
	struct iovec in[2] = {{(void *)"hello ", 6}, {(void *)"world", 5}};
	struct iovec out[8];

	backlog_init(&backlog);
	assert_int_equal(backlog_peek(&backlog, out, 8), 0);
	backlog_put(&backlog, in, 2);
	assert_int_equal(backlog_len(&backlog), 11);
	assert_int_equal(backlog_peek(&backlog, out, 8), 1);
	assert_memory_equal(out[0].iov_base, "hello world", 11);
	backlog_drop(&backlog, 4);
	backlog_put(&backlog, in, 1);
	assert_int_equal(backlog_peek(&backlog, out, 8), 1);
	assert_int_equal(out[0].iov_len, 13);
	assert_memory_equal(out[0].iov_base, "o worldhello ", 13);
	backlog_drop(&backlog, 13);
	assert_int_equal(backlog_len(&backlog), 0);
	assert_int_equal(backlog_peek(&backlog, out, 8), 0);
	backlog_put(&backlog, in, 2);
	backlog_deinit(&backlog); /* with bytes in it */
}

static uint8_t byte_at(unsigned at)
{
	return (uint8_t)(at * 31 + (at >> 8));
}

static void *put_all(void *arg)
{
	static uint8_t bytes[100000];
	unsigned at = 0;

	while (at < TOTAL) {
		unsigned n = 1 + (at * 7919) % sizeof(bytes);
		struct iovec piece = {.iov_base = bytes};

		if (n > TOTAL - at)
			n = TOTAL - at;
		for (unsigned i = 0; i < n; i++)
			bytes[i] = byte_at(at + i);
		piece.iov_len = n;
		backlog_put(arg, &piece, 1);
		at += n;
	}
	return NULL;
}

static void one_puts_while_one_takes(void **state)
{
	struct backlog backlog;
	pthread_t thread;
	unsigned at = 0;

	backlog_init(&backlog);
	assert_int_equal(pthread_create(&thread, NULL, put_all, &backlog), 0);
	while (at < TOTAL) {
		struct iovec pieces[3];
		size_t count = backlog_peek(&backlog, pieces, 3);
		unsigned before = at;

		for (size_t i = 0; i < count; i++)
			for (size_t k = 0; k < pieces[i].iov_len; k++, at++)
				assert_int_equal(
					((uint8_t *)pieces[i].iov_base)[k],
					byte_at(at));
		backlog_drop(&backlog, at - before);
		if (count == 0)
			sched_yield();
	}
	pthread_join(thread, NULL);
	assert_int_equal(backlog_len(&backlog), 0);
	backlog_deinit(&backlog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_come_out_in_order),
		cmocka_unit_test(one_puts_while_one_takes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
