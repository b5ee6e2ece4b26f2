/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of ca_phase.h and the state as text. What a newcomer gets wrong: a
 * verb may be repeated, because authd may die after it wrote and before it
 * answered; so what has been reached already is no error.
 */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "auth/ca_phase.h"

static const enum ca_action actions[CA_PHASES][CA_VERBS] = {
	[CA_STANDBY] = {[CA_START] = CA_MAKE,
		[CA_FINISH] = CA_NOTHING,
		[CA_ROLLBACK] = CA_REFUSED},
	[CA_ROTATING] = {[CA_START] = CA_NOTHING,
		[CA_FINISH] = CA_DROP_FIRST,
		[CA_ROLLBACK] = CA_USE_FIRST},
	[CA_ROLLING_BACK] = {[CA_START] = CA_USE_SECOND,
		[CA_FINISH] = CA_DROP_SECOND,
		[CA_ROLLBACK] = CA_NOTHING},
};

static const char *const texts[CA_PHASES] = {
	[CA_STANDBY] = "standby",
	[CA_ROTATING] = "rotating",
	[CA_ROLLING_BACK] = "rolling back",
};

enum ca_action ca_phase_next(enum ca_phase phase, enum ca_verb verb)
{
	return actions[phase][verb];
}

const char *ca_phase_text(enum ca_phase phase)
{
	return texts[phase];
}

char *ca_state_encode(const struct ca_state *state)
{
	json_t *json = json_pack("{s:s, s:I, s:I}", "phase",
		texts[state->phase], "since", (json_int_t)state->since,
		"spread_ms", (json_int_t)state->spread_ms);
	char *text = json_dumps(json, JSON_COMPACT);

	json_decref(json);
	return text;
}

static int fill(json_t *json, struct ca_state *out)
{
	json_int_t since, spread_ms;
	const char *phase;

	if (json_unpack(json, "{s:s, s:I, s:I}", "phase", &phase, "since",
		    &since, "spread_ms", &spread_ms) < 0 ||
		spread_ms < 0 || spread_ms > UINT32_MAX)
		return -EBADMSG;
	for (int i = 0; i < CA_PHASES; i++) {
		if (strcmp(phase, texts[i]))
			continue;
		out->phase = (enum ca_phase)i;
		out->since = since;
		out->spread_ms = (uint32_t)spread_ms;
		return 0;
	}
	return -EBADMSG;
}

int ca_state_decode(const void *text, size_t len, struct ca_state *out)
{
	json_t *json = json_loadb(text, len, 0, NULL);
	int ret = json ? fill(json, out) : -EBADMSG;

	json_decref(json);
	return ret;
}
