/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "peerctl/pump.h"
#include "tests/unit/shared/tls_pair.h"

#define BULK (1 << 20)

/* pump_run() in a thread of its own, between pipes and the test's SSL. */
struct fixture {
	pthread_t thread;
	struct client client;
	int pump_in;
	int pump_out;
	int result;

	/* the test's ends */
	int in;	 /* write: the pump's stdin */
	int out; /* read: its stdout */
	int net;
	SSL *ssl;
};

static void *run(void *arg)
{
	struct fixture *f = arg;

	assert(SSL_connect(f->client.ssl) == 1);
	fcntl(f->client.fd, F_SETFL, O_NONBLOCK);
	f->result = pump_run(&f->client, f->pump_in, f->pump_out);
	close(f->pump_in);
	SSL_free(f->client.ssl);
	close(f->client.fd);
	return NULL;
}

static SSL *ssl_on(int fd, bool server)
{
	SSL_CTX *ctx = tls_pair_ctx(server);
	SSL *ssl = SSL_new(ctx);

	SSL_CTX_free(ctx);
	SSL_set_fd(ssl, fd);
	return ssl;
}

static struct fixture *fixture_new(const char *first)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int in[2];
	int out[2];
	int net[2];

	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, net), 0);
	f->pump_in = in[0];
	f->in = in[1];
	f->out = out[0];
	f->pump_out = out[1];
	f->net = net[0];
	f->ssl = ssl_on(net[0], true);
	f->client.fd = net[1];
	f->client.ssl = ssl_on(net[1], false);
	f->client.first_len = strlen(first);
	memcpy(f->client.first, first, f->client.first_len);
	assert_int_equal(pthread_create(&f->thread, NULL, run, f), 0);
	assert_int_equal(SSL_accept(f->ssl), 1);
	return f;
}

/* Waits for the pump's end; its result. */
static int fixture_end(struct fixture *f)
{
	int result;

	pthread_join(f->thread, NULL);
	result = f->result;
	SSL_free(f->ssl);
	if (f->net >= 0)
		close(f->net);
	if (f->in >= 0)
		close(f->in);
	close(f->out);
	free(f);
	return result;
}

static size_t read_all(int fd, char *data, size_t size)
{
	size_t used = 0;
	ssize_t n;

	while (used < size && (n = read(fd, data + used, size - used)) > 0)
		used += n;
	return used;
}

static void the_end_of_stdin_leaves_the_other_direction(void **state)
{
	struct fixture *f = fixture_new("");
	char *bulk = malloc(BULK);
	char *back = malloc(BULK + 1);
	char text[16] = "";

	for (int i = 0; i < BULK; i++)
		bulk[i] = i * 7 + i / 251;
	assert_int_equal(write(f->in, "abc", 3), 3);
	close(f->in);
	f->in = -1;
	assert_int_equal(SSL_read(f->ssl, text, sizeof(text)), 3);
	assert_string_equal(text, "abc");
	assert_int_equal(SSL_read(f->ssl, text, sizeof(text)), 0);
	assert_int_equal(SSL_get_error(f->ssl, 0), SSL_ERROR_ZERO_RETURN);

	/* More than the pipe and the socket hold: read beside it. */
	fcntl(f->net, F_SETFL, 0);
	for (int sent = 0, got = 0; got < BULK;) {
		if (sent < BULK) {
			assert_int_equal(
				SSL_write(f->ssl, bulk + sent, 4096), 4096);
			sent += 4096;
		}
		got += read_all(f->out, back + got,
			sent < BULK ? 4096 : (size_t)(BULK - got));
	}
	assert_memory_equal(bulk, back, BULK);
	SSL_shutdown(f->ssl);
	assert_int_equal(read_all(f->out, back, 1), 0);
	free(bulk);
	free(back);
	assert_int_equal(fixture_end(f), 0);
}

static void close_notify_leaves_stdin(void **state)
{
	struct fixture *f = fixture_new("");
	char text[16] = "";

	SSL_shutdown(f->ssl);
	assert_int_equal(read_all(f->out, text, sizeof(text)), 0);
	assert_int_equal(write(f->in, "late", 4), 4);
	assert_int_equal(SSL_read(f->ssl, text, sizeof(text)), 4);
	assert_string_equal(text, "late");
	close(f->in);
	f->in = -1;
	assert_int_equal(SSL_read(f->ssl, text, sizeof(text)), 0);
	assert_int_equal(fixture_end(f), 0);
}

static void a_proxy_that_has_gone_ends_both(void **state)
{
	struct fixture *f = fixture_new("");
	char text[16];

	SSL_write(f->ssl, "bye", 3);
	SSL_shutdown(f->ssl);
	close(f->net);
	f->net = -1;
	assert_int_equal(read_all(f->out, text, sizeof(text)), 3);
	/* stdin is still open */
	assert_int_equal(fixture_end(f), 0);
}

static void an_end_without_close_notify_is_an_error(void **state)
{
	struct fixture *f = fixture_new("");

	close(f->net);
	f->net = -1;
	assert_int_equal(fixture_end(f), -ECONNRESET);
}

static void first_bytes_come_first(void **state)
{
	struct fixture *f = fixture_new("first ");
	char text[16] = "";

	SSL_write(f->ssl, "second", 6);
	SSL_shutdown(f->ssl);
	assert_int_equal(read_all(f->out, text, sizeof(text)), 12);
	assert_string_equal(text, "first second");
	close(f->in);
	f->in = -1;
	assert_int_equal(fixture_end(f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_end_of_stdin_leaves_the_other_direction),
		cmocka_unit_test(close_notify_leaves_stdin),
		cmocka_unit_test(a_proxy_that_has_gone_ends_both),
		cmocka_unit_test(an_end_without_close_notify_is_an_error),
		cmocka_unit_test(first_bytes_come_first),
	};

	signal(SIGPIPE, SIG_IGN);
	alarm(20); /* a pump that hangs fails */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
