/* SPDX-License-Identifier: Apache-2.0 */
/* peerctl/doctor: what is pure of it. */
#include "tests/unit/test.h"

#include "peerctl/doctor.h"

static void a_setting_has_several_numbers(void **state)
{
	assert_int_equal(doctor_sysctl_number("4096\n", 0), 4096);
	assert_int_equal(
		doctor_sysctl_number("4096\t131072\t6291456\n", 2), 6291456);
	assert_int_equal(doctor_sysctl_number("32768 60999\n", 1), 60999);
	assert_int_equal(doctor_sysctl_number("32768 60999\n", 2), -1);
	assert_int_equal(doctor_sysctl_number("", 0), -1);
	assert_int_equal(doctor_sysctl_number("none", 0), -1);
}

static void a_worker_needs_two_descriptors_for_a_client(void **state)
{
	struct conf_proxy proxy = {.max_clients = 10, .max_tunnels = 100};
	uint64_t few = doctor_worker_descriptors(&proxy);

	proxy.max_clients++;
	assert_int_equal(doctor_worker_descriptors(&proxy), few + 2);
	proxy.max_tunnels++;
	assert_int_equal(doctor_worker_descriptors(&proxy), few + 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_setting_has_several_numbers),
		cmocka_unit_test(a_worker_needs_two_descriptors_for_a_client),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
