/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "shared/https_proxy.h"

static void test_urls(void **state)
{
	static const char *const good[] = {
		"http://10.0.0.1:3128",
		"HTTP://proxy.example.com:8080/",
		"http://[2001:db8::1]:3128",
		"http://user:pass@proxy:1",
		"http://user@proxy:1",
		"http://a%40b:p%3a@ss@proxy:1",
	};
	static const char *const bad[] = {
		"",
		"proxy:3128",
		"https://proxy:3128",
		"socks5://proxy:1080",
		"http://",
		"http://proxy",
		"http://:3128",
		"http://proxy:0",
		"http://proxy:99999",
		"http://proxy:x",
		"http://proxy:3128/path",
		"http://proxy:3128?x",
		"http://pro xy:3128",
		"http://proxy\n:3128",
		"http://2001:db8::1:3128",
		"http://hunter%2@proxy:1",
		"http://hunter%zz@proxy:1",
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (https_proxy_check(good[i]))
			fail_msg("%s: %s", good[i], https_proxy_check(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const char *why = https_proxy_check(bad[i]);

		if (!why)
			fail_msg("taken: %s", bad[i]);
		assert_null(strstr(why, "hunter"));
	}
}

static void check_request(const char *url, const char *addr, const char *text)
{
	struct https_proxy *proxy = https_proxy_new(url, NULL);
	char *request = https_proxy_request(proxy, "p.example.com:3080");

	assert_string_equal(https_proxy_addr(proxy), addr);
	assert_string_equal(request, text);
	free(request);
	https_proxy_free(proxy);
}

static void test_what_is_asked(void **state)
{
	check_request("http://10.0.0.1:3128/", "10.0.0.1:3128",
		"CONNECT p.example.com:3080 HTTP/1.1\r\n"
		"Host: p.example.com:3080\r\n\r\n");
	/* RFC 7617's own example */
	check_request("http://Aladdin:open%20sesame@[::1]:80", "[::1]:80",
		"CONNECT p.example.com:3080 HTTP/1.1\r\n"
		"Host: p.example.com:3080\r\n"
		"Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
		"\r\n\r\n");
	/* "u@:" and "u:p@x" */
	check_request("http://u%40@h:1", "h:1",
		"CONNECT p.example.com:3080 HTTP/1.1\r\n"
		"Host: p.example.com:3080\r\n"
		"Proxy-Authorization: Basic dUA6\r\n\r\n");
	check_request("http://u:p@x@h:1", "h:1",
		"CONNECT p.example.com:3080 HTTP/1.1\r\n"
		"Host: p.example.com:3080\r\n"
		"Proxy-Authorization: Basic dTpwQHg=\r\n\r\n");
}

static void test_exceptions(void **state)
{
	static const struct {
		const char *no_proxy;
		const char *addr;
		bool applies;
	} rows[] = {
		{NULL, "p.example.com", true},
		{"", "127.0.0.1", true},
		{"*", "p.example.com", false},
		{"*", "[::1]:3080", false},
		{"example.com", "p.example.com", false},
		{"example.com", "example.com:3080", false},
		{"example.com", "P.EXAMPLE.COM.", false},
		{"example.com", "badexample.com", true},
		{"example.com", "example.com.evil.org", true},
		{".example.com", "p.example.com", false},
		{"*.example.com", "a.b.example.com", false},
		{"p.example.com", "example.com", true},
		{"other, example.com ,x", "p.example.com", false},
		{"example.com:3080", "p.example.com", false},
		{"example.com:3024", "p.example.com", true},
		{"example.com:3024", "p.example.com:3024", false},
		{"10.0.0.0/8", "10.1.2.3", false},
		{"10.0.0.0/8", "11.1.2.3", true},
		{"10.1.2.3", "10.1.2.3:3024", false},
		{"10.1.2.3:3080", "10.1.2.3:3080", false},
		{"10.1.2.3:3080", "10.1.2.3:3081", true},
		/* a name is not looked up */
		{"10.0.0.0/8", "p.example.com", true},
		{"2001:db8::/32", "[2001:db8::1]:3080", false},
		{"[2001:db8::1]:3080", "[2001:db8::1]:3080", false},
		{"2001:db8::1", "[2001:db8::2]", true},
		/* digits at the end of an address are no suffix of a name */
		{"2.3", "10.1.2.3", true},
		{".", "p.example.com", true},
		{",,", "p.example.com", true},
		/* nothing to connect to */
		{NULL, "a:b:c", false},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct https_proxy *proxy =
			https_proxy_new("http://h:1", rows[i].no_proxy);

		if (https_proxy_applies(proxy, rows[i].addr, 3080) !=
			rows[i].applies)
			fail_msg("%s, %s", rows[i].no_proxy, rows[i].addr);
		https_proxy_free(proxy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_urls),
		cmocka_unit_test(test_what_is_asked),
		cmocka_unit_test(test_exceptions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
