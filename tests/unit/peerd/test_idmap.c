/* SPDX-License-Identifier: Apache-2.0 */
/* peerd/idmap: ids are found while their object is there, and never reused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "peerd/idmap.h"

#define MANY 1000

static void objects_are_found_until_removed(void **state)
{
	static int objects[MANY];
	struct idmap *map = idmap_new();
	uint64_t ids[MANY];

	for (int i = 0; i < MANY; i++)
		ids[i] = idmap_add(map, &objects[i]);
	for (int i = 0; i < MANY; i += 2)
		idmap_remove(map, ids[i]);
	for (int i = 0; i < MANY; i++)
		assert_ptr_equal(
			idmap_find(map, ids[i]), i % 2 ? &objects[i] : NULL);
	assert_int_equal(idmap_count(map), MANY / 2);
	for (int i = 1; i < MANY; i += 2)
		idmap_remove(map, ids[i]);
	idmap_free(map);
}

static void ids_are_never_given_twice(void **state)
{
	struct idmap *map = idmap_new();
	int object;
	uint64_t first = idmap_add(map, &object);
	uint64_t second;

	idmap_remove(map, first);
	second = idmap_add(map, &object);
	assert_int_not_equal(first, second);
	assert_null(idmap_find(map, first));
	idmap_remove(map, first);
	assert_int_equal(idmap_count(map), 1);
	idmap_remove(map, second);
	idmap_free(map);
}

static struct idmap *walked;
static uint64_t walked_ids[3];
static int visits;

static void remove_all(void *arg, void *object)
{
	visits++;
	for (int i = 0; i < 3; i++)
		idmap_remove(walked, walked_ids[i]);
}

static void a_walk_may_remove_what_it_has_not_seen(void **state)
{
	int object;

	walked = idmap_new();
	for (int i = 0; i < 3; i++)
		walked_ids[i] = idmap_add(walked, &object);
	idmap_each(walked, remove_all, NULL);
	assert_int_equal(visits, 1);
	idmap_free(walked);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_are_found_until_removed),
		cmocka_unit_test(ids_are_never_given_twice),
		cmocka_unit_test(a_walk_may_remove_what_it_has_not_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
