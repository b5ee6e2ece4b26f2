/* SPDX-License-Identifier: Apache-2.0 */

/*
 * pump serve: the service behind an agent. Two ports of 127.0.0.1, one that
 * serves transfers (pump_flow.h) and one that sends back what it gets; both
 * are printed once they listen. A thread for each connection.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/tools/pump.h"
#include "tests/tools/pump_flow.h"

#define SERVE_LIMIT_MS (30 * 60 * 1000)

static int listen_any(uint16_t *port_out)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, len) < 0 ||
		listen(fd, 4096) < 0 ||
		getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		return -1;
	*port_out = ntohs(addr.sin_port);
	return fd;
}

static int serve_transfer(struct pump_io *io)
{
	uint8_t bytes[PUMP_REQUEST_SIZE];
	struct pump_request request;
	struct pump_flow flow;
	int ret;

	ret = pump_io_read_all(io, bytes, sizeof(bytes));
	if (ret < 0 || (ret = pump_request_decode(bytes, &request)) < 0)
		return ret;
	ret = pump_flow_run(io, request.down, request.up, &flow);
	if (ret < 0)
		return ret;
	ret = pump_io_write_all(
		io, flow.received_digest, sizeof(flow.received_digest));
	if (ret < 0)
		return ret;
	return pump_io_write_all(
		io, flow.sent_digest, sizeof(flow.sent_digest));
}

static void *on_transfer(void *arg)
{
	struct pump_io io;
	char rest[4096];
	int ret;

	pump_io_init(
		&io, (int)(intptr_t)arg, NULL, pump_now_ms() + SERVE_LIMIT_MS);
	ret = serve_transfer(&io);
	if (ret < 0)
		fprintf(stderr, "transfer ended: %d\n", ret);
	shutdown(io.fd, SHUT_WR);
	while (ret == 0 && !pump_io_wait(&io, POLLIN))
		if (pump_io_read(&io, rest, sizeof(rest)) <= 0)
			break;
	pump_io_deinit(&io);
	return NULL;
}

static void *on_echo(void *arg)
{
	char buf[65536];
	int fd = (int)(intptr_t)arg;
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0) {
		for (ssize_t at = 0, put = 0; at < n; at += put) {
			put = send(
				fd, buf + at, (size_t)(n - at), MSG_NOSIGNAL);
			if (put < 0) {
				close(fd);
				return NULL;
			}
		}
	}
	close(fd); /* after a shutdown of the other side: the end of ours */
	return NULL;
}

static void accept_one(int listener, void *(*serve)(void *))
{
	pthread_attr_t attr;
	pthread_t thread;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 512 * 1024);
	if (pthread_create(&thread, &attr, serve, (void *)(intptr_t)fd))
		close(fd);
	pthread_attr_destroy(&attr);
}

int pump_serve(void)
{
	uint16_t transfer_port, echo_port;
	struct pollfd listeners[2];

	listeners[0].fd = listen_any(&transfer_port);
	listeners[1].fd = listen_any(&echo_port);
	if (listeners[0].fd < 0 || listeners[1].fd < 0) {
		perror("pump: listen");
		return 1;
	}
	listeners[0].events = listeners[1].events = POLLIN;
	printf("pump %u echo %u\n", transfer_port, echo_port);
	fflush(stdout);
	for (;;) {
		if (poll(listeners, 2, -1) < 0 && errno != EINTR)
			return 1;
		if (listeners[0].revents)
			accept_one(listeners[0].fd, on_transfer);
		if (listeners[1].revents)
			accept_one(listeners[1].fd, on_echo);
	}
}
