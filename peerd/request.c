/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first frame of a peer stream, for server.c (reads) and client.c (makes).
 * Texts and order of the checks are the reference's own, since its operators
 * search their logs for them. Talks to nobody.
 *
 * A newcomer's trap: a message that is present but empty is not missing. The
 * reference refuses an absent Source, yet takes one without an address.
 */
#include "peerd/request.h"

#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "peerd/frame.h"
#include "shared/alloc.h"
#include "shared/identity.h"
#include "shared/sock.h"

static int refuse(char **text_out, char *text)
{
	*text_out = text;
	return REQUEST_INVALID;
}

static int check(
	const Proto__DialRequest *dial, struct request *out, char **text_out)
{
	if (!dial->source || !dial->destination)
		return refuse(text_out,
			xstrdup("invalid dial request: source and destination "
				"must not be nil"));
	if (!request_split_node_id(dial->nodeid, out->agent_id,
		    sizeof(out->agent_id), &out->cluster))
		return refuse(
			text_out, xasprintf("invalid server id: \"%.300s\"",
					  dial->nodeid));
	out->node_id = dial->nodeid;
	out->type = dial->tunneltype;
	out->source = dial->source->addr;
	out->destination = dial->destination->addr;
	return REQUEST_OK;
}

int request_parse(
	const uint8_t *frame, size_t len, struct request *out, char **text_out)
{
	struct iovec piece = {.iov_base = (void *)frame, .iov_len = len};
	struct request request = {0};
	int status;

	if (len <= REQUEST_FRAME_MAX &&
		frame_parse(&piece, 1).kind == FRAME_DIAL_REQUEST)
		request.frame = proto__frame__unpack(NULL, len, frame);
	if (!request.frame ||
		request.frame->message_case !=
			PROTO__FRAME__MESSAGE_DIAL_REQUEST ||
		!request.frame->dialrequest) {
		request_deinit(&request);
		return refuse(text_out,
			xstrdup("invalid dial request: request must not be "
				"nil"));
	}
	status = check(request.frame->dialrequest, &request, text_out);
	if (status == REQUEST_OK)
		*out = request;
	else
		request_deinit(&request);
	return status;
}

void request_deinit(struct request *request)
{
	if (request->frame)
		proto__frame__free_unpacked(request->frame, NULL);
	*request = (struct request){0};
}

bool request_split_node_id(
	const char *node_id, char *id_out, size_t id_size, const char **rest)
{
	const char *dot = strchrnul(node_id, '.');
	size_t len = (size_t)(dot - node_id);

	if (len == 0)
		return false;
	if (len >= id_size)
		len = id_size - 1;
	memcpy(id_out, node_id, len);
	id_out[len] = '\0';
	*rest = *dot ? dot + 1 : dot;
	return true;
}

static bool is_local_node(const char *host)
{
	return host[0] == '\0' || strcmp(host, "@local-node") == 0;
}

bool request_service(const char *destination, char *service_out,
	size_t service_size, uint32_t *port_out)
{
	char host[SOCK_ADDR_MAX];
	uint16_t port = 0;
	const char *colon = strrchr(destination, ':');
	size_t len =
		colon ? (size_t)(colon - destination) : strlen(destination);

	if (len >= sizeof(host))
		return false;
	memcpy(host, destination, len);
	host[len] = '\0';
	if (colon) {
		char *end;
		unsigned long value = strtoul(colon + 1, &end, 10);

		if (colon[1] < '0' || colon[1] > '9' || *end || value > 65535)
			return false;
		port = (uint16_t)value;
	}
	if (is_local_node(host))
		host[0] = '\0';
	else if (!identity_name_is_valid(host))
		return false;
	if (strlen(host) >= service_size)
		return false;
	strcpy(service_out, host);
	*port_out = host[0] ? port : 0;
	return true;
}

uint8_t *request_make(const struct request_fields *fields, size_t *len_out)
{
	Proto__NetAddr source = PROTO__NET_ADDR__INIT;
	Proto__NetAddr destination = PROTO__NET_ADDR__INIT;
	Proto__DialRequest dial = PROTO__DIAL_REQUEST__INIT;
	Proto__Frame frame = PROTO__FRAME__INIT;
	char *node_id = xasprintf("%s.%s", fields->agent_id, fields->cluster);
	char *address = fields->service[0] ? xasprintf("%s:%u", fields->service,
						     (unsigned)fields->port)
					   : xstrdup("@local-node");
	uint8_t *bytes;

	source.network = (char *)"tcp";
	source.addr = (char *)fields->source;
	destination.network = (char *)"tcp";
	destination.addr = address;
	dial.nodeid = node_id;
	dial.tunneltype = (char *)fields->type;
	dial.source = &source;
	dial.destination = &destination;
	frame.message_case = PROTO__FRAME__MESSAGE_DIAL_REQUEST;
	frame.dialrequest = &dial;

	*len_out = proto__frame__get_packed_size(&frame);
	bytes = xcalloc(1, *len_out);
	proto__frame__pack(&frame, bytes);
	free(node_id);
	free(address);
	return bytes;
}
