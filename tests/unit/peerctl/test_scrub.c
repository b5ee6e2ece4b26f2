/* SPDX-License-Identifier: Apache-2.0 */
/* peerctl/scrub: nothing secret is left, and nothing else is lost. */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "peerctl/scrub.h"

static struct scrub *make(void)
{
	static const char text[] =
		"peerway: {cluster_name: x, data_dir: /nowhere}\n"
		"agent_service: {name: n, proxy_server: p, https_proxy: "
		"'http://us:pass@word@10.0.0.1:3128'}\n";
	char *error = NULL;
	struct conf *conf =
		conf_parse("f", (const uint8_t *)text, strlen(text), &error);
	struct scrub *scrub;

	if (!conf)
		fail_msg("%s", error);
	scrub = scrub_new(conf);
	conf_free(conf);
	return scrub;
}

static void expect(const char *text, const char *expected)
{
	struct scrub *scrub = make();
	char *clean;

	scrub_add(scrub, "topsecret");
	scrub_add(scrub, "topsecret-and-more");
	scrub_add(scrub, "short");
	clean = scrub_text(scrub, text);
	assert_string_equal(clean, expected);
	free(clean);
	scrub_free(scrub);
}

static void known_secrets_go_wherever_they_are(void **state)
{
	expect("", "");
	expect("a topsecret b", "a [removed] b");
	expect("xtopsecrety", "x[removed]y");
	expect("topsecret-and-more.", "[removed].");
	expect("of https_proxy: pass@word", "of https_proxy: [removed]");
	expect("too short", "too short");
}

static void user_info_of_any_url_goes(void **state)
{
	expect("via http://a:b@c:1/ and https://d/",
		"via http://[removed]@c:1/ and https://d/");
	expect("http://a:b@d@c", "http://[removed]@c");
	expect("mail me@example.com", "mail me@example.com");
}

static void private_keys_go_whole(void **state)
{
	expect("x\n-----BEGIN EC PRIVATE KEY-----\nMHc\n"
	       "-----END EC PRIVATE KEY-----\ny",
		"x\n[removed]\ny");
	expect("-----BEGIN PRIVATE KEY-----\ncut", "[removed]");
	expect("-----BEGIN CERTIFICATE-----\nMII", "-----BEGIN CERTIFICATE-----"
						   "\nMII");
}

static void a_configuration_keeps_its_keys(void **state)
{
	static const char text[] =
		"# a comment with a password\n"
		"peerway: {cluster_name: x, log: {level: info}}\n"
		"agent_service:\n"
		"  https_proxy: \"http:\\x2f\\x2fu:p\\x40h\" # p\n"
		"  services: [{name: \"a\\\"b\", type: node}]\n"
		"  labels: {}\n";
	struct scrub *scrub = make();
	char *error = NULL;
	char *clean = scrub_conf(scrub, "f", text, &error);

	assert_string_equal(clean, "peerway: \n"
				   "  cluster_name: x\n"
				   "  log: \n"
				   "    level: info\n"
				   "agent_service: \n"
				   "  https_proxy: \"[removed]\"\n"
				   "  services: \n"
				   "    - \n"
				   "      name: \"a\\\"b\"\n"
				   "      type: node\n"
				   "  labels: {}\n");
	free(clean);
	clean = scrub_conf(scrub, "f", "a: [", &error);
	assert_null(clean);
	free(error);
	scrub_free(scrub);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_secrets_go_wherever_they_are),
		cmocka_unit_test(user_info_of_any_url_goes),
		cmocka_unit_test(private_keys_go_whole),
		cmocka_unit_test(a_configuration_keeps_its_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
