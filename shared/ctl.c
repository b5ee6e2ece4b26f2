/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peerctl's questions. A call remembers which link asked by an id that is
 * looked up again when the answer is ready, since the link may have gone.
 */
#include "shared/ctl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

#include "shared/alloc.h"
#include "shared/sock.h"

#define PART_MAX 60000
#define ANSWER_MAX (256u << 20)

struct ctl_call {
	TAILQ_ENTRY(ctl_call) entry;
	struct ipc_link *link; /* NULL: has gone, or ctl_run()'s */
	uint64_t id;
	void (*done)(void *arg, bool ok, const char *text); /* ctl_run()'s */
	void *done_arg;
};

static struct {
	const struct ctl_verb *verbs;
	void *arg;
	TAILQ_HEAD(, ctl_call) calls;
	bool ready;
} served;

void ctl_serve(const struct ctl_verb *verbs, void *arg)
{
	served.verbs = verbs;
	served.arg = arg;
	TAILQ_INIT(&served.calls);
	served.ready = true;
}

void ctl_link_gone(struct ipc_link *link)
{
	struct ctl_call *call;

	if (!served.ready)
		return;
	TAILQ_FOREACH (call, &served.calls, entry) {
		if (call->link == link)
			call->link = NULL;
	}
}

/* Sends text in parts and ends the call. */
static void answer(struct ctl_call *call, bool ok, const char *text)
{
	Peerway__Ipc__CtlReply reply = PEERWAY__IPC__CTL_REPLY__INIT;
	const char *whole = text;
	size_t left = strlen(text);

	reply.id = call->id;
	reply.ok = ok;
	while (call->link && !reply.last) {
		reply.part.data = (uint8_t *)text;
		reply.part.len = left < PART_MAX ? left : PART_MAX;
		text += reply.part.len;
		left -= reply.part.len;
		reply.last = left == 0;
		if (ipc_link_send(call->link, IPC_CTL_REPLY, &reply.base, -1) <
			0)
			break;
	}
	if (call->done)
		call->done(call->done_arg, ok, whole);
	else
		TAILQ_REMOVE(&served.calls, call, entry);
	free(call);
}

void ctl_reply(struct ctl_call *call, json_t *json)
{
	char *text = json_dumps(json, JSON_COMPACT);

	json_decref(json);
	if (text)
		answer(call, true, text);
	else
		answer(call, false, "the answer is not valid JSON");
	free(text);
}

void ctl_fail(struct ctl_call *call, const char *format, ...)
{
	va_list ap;
	char *text;

	va_start(ap, format);
	text = xvasprintf(format, ap);
	va_end(ap);
	answer(call, false, text);
	free(text);
}

static void run(struct ctl_call *call, const struct ctl_verb *verb, void *arg,
	const char *name, const char *text)
{
	json_t *args;

	while (verb && verb->name && strcmp(verb->name, name) != 0)
		verb++;
	if (!verb || !verb->name) {
		ctl_fail(call, "unknown request: %.64s", name);
		return;
	}
	args = json_loads(*text ? text : "{}", 0, NULL);
	if (json_is_object(args))
		verb->handle(call, arg, args);
	else
		ctl_fail(call, "the arguments are not a JSON object");
	json_decref(args);
}

void ctl_handle_request(struct ipc_link *link, void *arg, struct ipc_msg *msg)
{
	Peerway__Ipc__CtlRequest *request = (void *)msg->payload;
	struct ctl_call *call = xcalloc(1, sizeof(*call));

	call->link = link;
	call->id = request->id;
	TAILQ_INSERT_TAIL(&served.calls, call, entry);
	run(call, served.verbs, served.arg, request->verb, request->args);
}

void ctl_run(const struct ctl_verb *verbs, void *arg, const char *verb,
	const char *args, void (*done)(void *arg, bool ok, const char *text),
	void *done_arg)
{
	struct ctl_call *call = xcalloc(1, sizeof(*call));

	call->done = done;
	call->done_arg = done_arg;
	run(call, verbs, arg, verb, args);
}

/* ---- client ---- */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static int send_blocking(
	int fd, enum ipc_type type, const ProtobufCMessage *payload)
{
	static uint8_t buf[IPC_MESSAGE_MAX];
	int len = ipc_pack(type, payload, buf);

	if (len < 0)
		return len;
	/* The first messages of a fresh socket always find room. */
	return ipc_transmit(fd, buf, len, -1) == IPC_OK ? 0 : -EPIPE;
}

/* Waits for the next message until deadline; NULL or what went wrong. */
static const char *next_message(int fd, int64_t deadline, struct ipc_msg *msg)
{
	for (;;) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		enum ipc_result result = ipc_receive(fd, msg);
		int64_t left = deadline - now_ms();

		if (result == IPC_OK)
			return NULL;
		if (result != IPC_AGAIN)
			return ipc_result_text(result);
		if (left <= 0 || poll(&pfd, 1, left) == 0)
			return "no answer in time";
	}
}

static const char *ask(int fd, const char *verb, const char *args)
{
	Peerway__Ipc__Hello hello = PEERWAY__IPC__HELLO__INIT;
	Peerway__Ipc__CtlRequest request = PEERWAY__IPC__CTL_REQUEST__INIT;

	hello.version = IPC_VERSION;
	hello.peer = PEERWAY__IPC__PEER__PEER_CTL;
	hello.pid = getpid();
	hello.build = (char *)PEERWAY_VERSION;
	request.id = 1;
	request.verb = (char *)verb;
	request.args = (char *)args;
	if (send_blocking(fd, IPC_HELLO, &hello.base) < 0 ||
		send_blocking(fd, IPC_CTL_REQUEST, &request.base) < 0)
		return "cannot send the request";
	return NULL;
}

/* Gathers the answer's parts; its text (gives) or NULL and *why_out. */
static char *gather(
	int fd, int64_t deadline, bool *ok_out, const char **why_out)
{
	size_t len = 0;
	char *text = NULL;

	for (;;) {
		Peerway__Ipc__CtlReply *reply;
		struct ipc_msg msg;
		bool last;

		*why_out = next_message(fd, deadline, &msg);
		if (*why_out)
			break;
		if (msg.row->type != IPC_CTL_REPLY) {
			ipc_msg_done(&msg);
			continue;
		}
		reply = (void *)msg.payload;
		text = xrealloc(text, len + reply->part.len + 1);
		memcpy(text + len, reply->part.data, reply->part.len);
		len += reply->part.len;
		text[len] = 0;
		*ok_out = reply->ok;
		last = reply->last;
		ipc_msg_done(&msg);
		if (last)
			return text;
		if (len > ANSWER_MAX) {
			*why_out = "the answer is too long";
			break;
		}
	}
	free(text);
	return NULL;
}

json_t *ctl_ask(const char *path, const char *verb, const json_t *args,
	int timeout_ms, char **error_out)
{
	int64_t deadline = now_ms() + timeout_ms;
	int fd = sock_unix_connect(path);
	char *arg_text = args ? json_dumps(args, JSON_COMPACT) : xstrdup("{}");
	char *text = NULL;
	const char *why;
	json_t *json = NULL;
	bool ok = false;

	*error_out = NULL;
	why = fd < 0 ? strerror(-fd) : ask(fd, verb, arg_text);
	if (!why)
		text = gather(fd, deadline, &ok, &why);
	if (text && ok) {
		json = json_loads(text, JSON_DECODE_ANY, NULL);
		why = "the answer is not valid JSON";
	} else if (text) {
		why = text;
	}
	if (!json)
		*error_out = text && !ok ? xstrdup(text)
					 : xasprintf("%s: %s", path, why);
	if (fd >= 0)
		close(fd);
	free(arg_text);
	free(text);
	return json;
}
