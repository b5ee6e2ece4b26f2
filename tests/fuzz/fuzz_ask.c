/* SPDX-License-Identifier: Apache-2.0 */
/* A peer's question (peerway.Mesh/Ask): any bytes are none, or are answered
 * once. */
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mesh.pb-c.h"
#include "shared/ctl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void answer_args(struct ctl_call *call, void *arg, json_t *args)
{
	ctl_reply(call, json_incref(args));
}

static const struct ctl_verb verbs[] = {
	{"status", answer_args},
	{NULL, NULL},
};

static void on_answer(void *arg, bool ok, const char *text)
{
	unsigned *answers = arg;

	assert(text);
	(*answers)++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Peerway__AskRequest *request =
		peerway__ask_request__unpack(NULL, size, data);
	unsigned answers = 0;

	if (!request)
		return 0;
	ctl_run(verbs, NULL, request->verb, request->args, on_answer, &answers);
	assert(answers == 1);
	peerway__ask_request__free_unpacked(request, NULL);
	return 0;
}
