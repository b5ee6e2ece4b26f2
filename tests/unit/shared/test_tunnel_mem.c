/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots: an idle session's large blocks come from them and go back to them,
 * memory asked for zeroed is, and running out falls back to malloc.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shared/tunnel_mem.h"

static nghttp2_session *new_session(struct tunnel_mem_user *user)
{
	nghttp2_mem functions = tunnel_mem_functions(user);
	nghttp2_session_callbacks *callbacks;
	nghttp2_session *session;

	nghttp2_session_callbacks_new(&callbacks);
	assert_int_equal(nghttp2_session_client_new3(
				 &session, callbacks, NULL, NULL, &functions),
		0);
	nghttp2_session_callbacks_del(callbacks);
	return session;
}

/* Fails with an nghttp2 that asks for other sizes than 1.52: then the classes
 * in tunnel_mem.c want a look, or idle tunnels cost twice as much. */
static void test_large_blocks_of_a_session_are_slots(void **state)
{
	struct tunnel_mem *mem = tunnel_mem_new(4);
	struct tunnel_mem_user user = {.mem = mem};
	nghttp2_session *session;

	assert_non_null(mem);
	session = new_session(&user);
	assert_int_equal(tunnel_mem_used(mem), 4);
	assert_non_null(user.frames[0]);
	nghttp2_session_del(session);
	assert_int_equal(tunnel_mem_used(mem), 0);
	assert_null(user.frames[0]);
	tunnel_mem_free(mem);
}

static void test_more_sessions_than_slots(void **state)
{
	struct tunnel_mem *mem = tunnel_mem_new(2);
	struct tunnel_mem_user users[5];
	nghttp2_session *sessions[5];

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 5; i++) {
			users[i] = (struct tunnel_mem_user){.mem = mem};
			sessions[i] = new_session(&users[i]);
		}
		assert_int_equal(tunnel_mem_used(mem), 8);
		for (int i = 0; i < 5; i++)
			nghttp2_session_del(sessions[i]);
		assert_int_equal(tunnel_mem_used(mem), 0);
	}
	tunnel_mem_free(mem);
}

static void test_without_slots_all_comes_from_malloc(void **state)
{
	struct tunnel_mem_user user = {.mem = NULL};
	nghttp2_session *session = new_session(&user);

	tunnel_mem_trim(&user);
	nghttp2_session_del(session);
}

static void test_reused_memory_is_zero_when_asked_for(void **state)
{
	static const size_t sizes[] = {1024, 4096, 16394, 65546};
	struct tunnel_mem *mem = tunnel_mem_new(1);
	struct tunnel_mem_user user = {.mem = mem};
	nghttp2_mem functions = tunnel_mem_functions(&user);

	for (size_t i = 0; i < 4; i++) {
		uint8_t *block = functions.malloc(sizes[i], &user);

		assert_int_equal(tunnel_mem_used(mem), 1);
		memset(block, 0xaa, sizes[i]);
		functions.free(block, &user);
		block = functions.calloc(1, sizes[i], &user);
		for (size_t j = 0; j < sizes[i]; j++)
			assert_int_equal(block[j], 0);
		functions.free(block, &user);
	}
	assert_null(functions.calloc(SIZE_MAX / 2, 3, &user));
	tunnel_mem_free(mem);
}

static void test_growing_block_moves_with_its_bytes(void **state)
{
	struct tunnel_mem *mem = tunnel_mem_new(1);
	struct tunnel_mem_user user = {.mem = mem};
	nghttp2_mem functions = tunnel_mem_functions(&user);
	uint8_t *block = functions.malloc(16394, &user);
	uint8_t *moved;

	memset(block, 0x55, 16394);
	assert_ptr_equal(functions.realloc(block, 17000, &user), block);
	moved = functions.realloc(block, 65546, &user);
	assert_ptr_not_equal(moved, block);
	for (int i = 0; i < 16394; i++)
		assert_int_equal(moved[i], 0x55);
	assert_int_equal(tunnel_mem_used(mem), 1);
	functions.free(moved, &user);
	functions.free(functions.realloc(NULL, 100, &user), &user);
	functions.free(NULL, &user);
	assert_int_equal(tunnel_mem_used(mem), 0);
	tunnel_mem_free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_large_blocks_of_a_session_are_slots),
		cmocka_unit_test(test_more_sessions_than_slots),
		cmocka_unit_test(test_without_slots_all_comes_from_malloc),
		cmocka_unit_test(test_reused_memory_is_zero_when_asked_for),
		cmocka_unit_test(test_growing_block_moves_with_its_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
