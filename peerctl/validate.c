/* SPDX-License-Identifier: Apache-2.0 */
/*
 * validate: whether authd's records, this host's cache and its live tunnels
 * agree. A record takes a moment from one to the other, so what differs is
 * looked at again, and only what differs every time is a difference.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "peerctl/command.h"
#include "peerctl/differences.h"
#include "peerctl/table.h"

#define LOOKS 5
#define PAUSE_MS 500

struct look {
	json_t *routed;
	json_t *tunnels;
	json_t *status;
};

static void look_deinit(struct look *look)
{
	json_decref(look->routed);
	json_decref(look->tunnels);
	json_decref(look->status);
}

/* The differences as of now, or NULL after saying why they are not known. */
static json_t *look_once(struct options *options, struct look *look)
{
	look_deinit(look);
	*look = (struct look){0};
	look->routed = options_answer(options, "routed", "validate", NULL);
	if (look->routed)
		look->tunnels =
			options_answer(options, "peerd", "tunnels", NULL);
	if (look->tunnels)
		look->status = options_answer(options, "peerd", "status", NULL);
	if (!look->status)
		return NULL;
	return differences_of(look->routed, look->tunnels, look->status);
}

static json_t *look_again(struct options *options, struct look *look)
{
	json_t *lasting = look_once(options, look);

	for (int i = 1; i < LOOKS && json_array_size(lasting); i++) {
		json_t *now;
		json_t *still;

		poll(NULL, 0, PAUSE_MS);
		now = look_once(options, look);
		if (!now) {
			json_decref(lasting);
			return NULL;
		}
		still = differences_lasting(lasting, now);
		json_decref(lasting);
		json_decref(now);
		lasting = still;
	}
	return lasting;
}

static const json_t *at(const json_t *object, const char *key)
{
	return json_object_get(object, key);
}

static void print_json(const struct look *look, json_t *differences)
{
	table_print_json(json_pack("{s:O, s:O, s:i, s:O}", "backend",
		at(look->routed, "backend"), "cache", at(look->routed, "cache"),
		"tunnels", (int)json_array_size(at(look->tunnels, "tunnels")),
		"differences", differences));
}

static void print_lines(const struct look *look, const json_t *differences)
{
	const json_t *difference;
	size_t count = json_array_size(differences);
	size_t i;

	json_array_foreach(differences, i, difference)
		printf("%s\n", json_string_value(at(difference, "text")));
	if (!count)
		printf("authd (revision %lld), the cache and %zu live "
		       "tunnels agree\n",
			(long long)json_integer_value(
				at(at(look->routed, "backend"), "revision")),
			json_array_size(at(look->tunnels, "tunnels")));
}

int validate_command(struct options *options, int argc, char **argv)
{
	const struct options_spec spec = {
		.doc = "Compares authd's records, this proxy host's cache and "
		       "the tunnels that are live on it, and prints each "
		       "difference that lasts."
		       "\vExit status 1 when there is one, or when they cannot "
		       "be compared.",
	};
	struct look look = {0};
	json_t *differences;
	size_t count;

	options_parse(options, argc, argv, &spec);
	differences = look_again(options, &look);
	count = json_array_size(differences);
	if (differences && options->json)
		print_json(&look, differences);
	else if (differences)
		print_lines(&look, differences);
	look_deinit(&look);
	json_decref(differences);
	if (!differences)
		return EXIT_FAILED;
	if (!count)
		return EXIT_OK;
	return command_fail("%zu difference%s", count, count == 1 ? "" : "s");
}
