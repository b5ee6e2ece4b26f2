/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients of 3080 get to read. Pure. What a newcomer gets wrong: a body
 * of plain text quotes what the client wrote, so it is never sent as HTML.
 */
#include <stdio.h>
#include <string.h>

#include "proxy/answer.h"
#include "shared/alloc.h"

static const struct {
	int status;
	const char *phrase;
} phrases[] = {
	{200, "OK"},
	{400, "Bad Request"},
	{401, "Unauthorized"},
	{403, "Forbidden"},
	{404, "Not Found"},
	{405, "Method Not Allowed"},
	{409, "Conflict"},
	{413, "Content Too Large"},
	{415, "Unsupported Media Type"},
	{431, "Request Header Fields Too Large"},
	{500, "Internal Server Error"},
	{502, "Bad Gateway"},
	{503, "Service Unavailable"},
	{504, "Gateway Timeout"},
};

static const char *phrase_of(int status)
{
	for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++) {
		if (phrases[i].status == status)
			return phrases[i].phrase;
	}
	return "Error";
}

char *answer_text(int status, const char *content_type, const char *body)
{
	return xasprintf("HTTP/1.1 %d %s\r\n"
			 "Content-Type: %s\r\n"
			 "Content-Length: %zu\r\n"
			 "X-Content-Type-Options: nosniff\r\n"
			 "Cache-Control: no-store\r\n"
			 "Connection: close\r\n"
			 "\r\n"
			 "%s",
		status, phrase_of(status), content_type, strlen(body), body);
}

char *answer_connected(const struct answer_route *route)
{
	char worker[24] = "-";

	if (route->tunnel_worker >= 0)
		snprintf(worker, sizeof(worker), "%lld",
			(long long)route->tunnel_worker);
	return xasprintf("HTTP/1.1 200 Connection established\r\n"
			 "Peerway-Route: %s\r\n"
			 "Peerway-Proxy: %s\r\n"
			 "Peerway-Worker: %u\r\n"
			 "Peerway-Tunnel-Worker: %s\r\n"
			 "Peerway-Connection-Id: %s\r\n"
			 "\r\n",
		answer_route_name(route->route), route->proxy_id,
		(unsigned)route->client_worker, worker, route->connection_id);
}

const char *answer_route_name(Peerway__Ipc__Route route)
{
	switch (route) {
	case PEERWAY__IPC__ROUTE__ROUTE_LOCAL:
		return "local";
	case PEERWAY__IPC__ROUTE__ROUTE_SIBLING:
		return "sibling";
	case PEERWAY__IPC__ROUTE__ROUTE_PEER:
		return "peer";
	default:
		return "none";
	}
}

int answer_status_of(Peerway__Ipc__DialCode code)
{
	switch (code) {
	case PEERWAY__IPC__DIAL_CODE__DIAL_NOT_FOUND:
		return 404;
	case PEERWAY__IPC__DIAL_CODE__DIAL_DENIED:
		return 403;
	case PEERWAY__IPC__DIAL_CODE__DIAL_REFUSED:
		return 502;
	case PEERWAY__IPC__DIAL_CODE__DIAL_TIMED_OUT:
		return 504;
	case PEERWAY__IPC__DIAL_CODE__DIAL_INVALID:
		return 400;
	default:
		return 503;
	}
}
