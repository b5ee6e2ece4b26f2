/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole agent against proxies of the same process: real TLS, real HTTP/2,
 * real time. What it waits for is a condition, never a duration.
 */
#include "tests/unit/test.h"

#include "agent/agent.h"
#include "agent/attempts.h"
#include "agent/series.h"
#include "shared/log.h"
#include "tests/unit/agent/fake_proxy.h"

#define AGENT_ID "0a1b2c3d-0000-4000-8000-00000000000a"
#define PROXIES 3

static const char *const ids[PROXIES] = {
	"00000000-0000-4000-8000-000000000001",
	"00000000-0000-4000-8000-000000000002",
	"00000000-0000-4000-8000-000000000003",
};

struct scene {
	char directory[64];
	struct loop *loop;
	struct resolver *resolver;
	struct tunnel_hub *hub;
	struct metrics metrics;
	struct fake_ca ca;
	struct fake_proxy proxies[PROXIES];
	struct discovery fleet;
	struct discovery_proxy records[PROXIES];
	struct agent *agent;
	struct timer *tick;
	int echo_fd; /* a service that answers */
	struct event *echo_accept;
	char echo_addr[SOCK_ADDR_MAX];
	bool stopped;
};

static const struct tunnel_settings settings = {
	1000, 15000, 2, 1 << 20, 1 << 24};

static void on_tick(void *arg)
{
	struct scene *scene = arg;

	timer_set(scene->tick, 10);
}

/* Turns the loop until the condition holds; 20 s are enough for anything. */
#define wait_until(scene, condition)                                    \
	do {                                                            \
		int64_t until_ = loop_now((scene)->loop) + 20000;       \
		while (!(condition)) {                                  \
			loop_turn((scene)->loop, true);                 \
			if (loop_now((scene)->loop) > until_)           \
				fail_msg("waited for: %s", #condition); \
		}                                                       \
	} while (0)

/* The condition holds all the time. */
#define hold_for(scene, ms, condition)                                    \
	do {                                                              \
		int64_t until_ = loop_now((scene)->loop) + (ms);          \
		while (loop_now((scene)->loop) < until_) {                \
			loop_turn((scene)->loop, true);                   \
			if (!(condition))                                 \
				fail_msg("did not hold: %s", #condition); \
		}                                                         \
	} while (0)

static unsigned tunnels(const struct scene *scene)
{
	unsigned count = 0;

	for (int i = 0; i < PROXIES; i++)
		count += scene->proxies[i].tunnel_count;
	return count;
}

/* The only proxy that the agent has registered at; NULL: not one. */
static struct fake_proxy *holder(struct scene *scene)
{
	struct fake_proxy *found = NULL;

	for (int i = 0; i < PROXIES; i++)
		if (scene->proxies[i].tunnel_count &&
			scene->proxies[i].agent_name[0])
			found = &scene->proxies[i];
	return tunnels(scene) == 1 ? found : NULL;
}

static void push_all(struct scene *scene)
{
	for (int i = 0; i < PROXIES; i++)
		fake_push(&scene->proxies[i]);
}

static void set_strategy(
	struct scene *scene, enum discovery_strategy strategy, uint32_t count)
{
	for (int i = 0; i < PROXIES; i++) {
		scene->records[i].strategy = strategy;
		scene->records[i].agent_connection_count = count;
	}
}

static void make_fleet(struct scene *scene)
{
	strcpy(scene->fleet.cluster_name, FAKE_CLUSTER);
	scene->fleet.keep_alive_interval_ms = 15000;
	scene->fleet.keep_alive_count_max = 2;
	scene->fleet.proxies = scene->records;
	scene->fleet.proxy_count = PROXIES;
	for (int i = 0; i < PROXIES; i++) {
		struct fake_proxy *proxy = &scene->proxies[i];

		fake_proxy_init(proxy, scene->loop, &scene->ca,
			scene->directory, ids[i], "Proxy");
		proxy->fleet = &scene->fleet;
		strcpy(scene->records[i].id, ids[i]);
		strcpy(scene->records[i].public_addr[0], proxy->addr);
		scene->records[i].public_addr_count = 1;
	}
	set_strategy(scene, DISCOVERY_AGENT_MESH, 1);
}

static void on_service(evutil_socket_t fd, short what, void *arg)
{
	int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	assert_true(conn >= 0);
	assert_int_equal(write(conn, "hello", 5), 5);
	close(conn);
}

static void make_service(struct scene *scene)
{
	struct sockaddr_in in;
	struct sock_addr addr;

	sock_parse("127.0.0.1:0", 1, &addr);
	scene->echo_fd = sock_listen(&addr, false, 8);
	addr.len = sizeof(in);
	getsockname(scene->echo_fd, (struct sockaddr *)&in, &addr.len);
	snprintf(scene->echo_addr, sizeof(scene->echo_addr), "127.0.0.1:%u",
		ntohs(in.sin_port));
	scene->echo_accept = event_new(loop_base(scene->loop), scene->echo_fd,
		EV_READ | EV_PERSIST, on_service, scene);
	event_add(scene->echo_accept, NULL);
}

static int setup(void **state)
{
	struct scene *scene = xcalloc(1, sizeof(*scene));

	strcpy(scene->directory, "/tmp/peerway-agent-XXXXXX");
	assert_non_null(mkdtemp(scene->directory));
	scene->loop = loop_new();
	scene->resolver = resolver_new(scene->loop);
	scene->hub = tunnel_hub_new(scene->loop, &settings);
	scene->tick = timer_new(scene->loop, on_tick, scene);
	timer_set(scene->tick, 10);
	metrics_init(&scene->metrics, series_table, SERIES_COUNT, 1, 0, NULL);
	fake_ca_init(&scene->ca);
	make_fleet(scene);
	make_service(scene);
	*state = scene;
	return 0;
}

static void on_stopped(void *arg)
{
	((struct scene *)arg)->stopped = true;
}

static int teardown(void **state)
{
	struct scene *scene = *state;
	char command[128];

	if (scene->agent) {
		agent_stop(scene->agent, 0, on_stopped, scene);
		wait_until(scene, scene->stopped);
		agent_free(scene->agent);
	}
	for (int i = 0; i < PROXIES; i++)
		fake_proxy_deinit(&scene->proxies[i]);
	event_free(scene->echo_accept);
	close(scene->echo_fd);
	resolver_free(scene->resolver);
	timer_free(scene->tick);
	loop_turn(scene->loop, false);
	tunnel_hub_free(scene->hub);
	loop_free(scene->loop);
	metrics_deinit(&scene->metrics);
	fake_ca_deinit(&scene->ca);
	snprintf(command, sizeof(command), "rm -rf %s", scene->directory);
	assert_int_equal(system(command), 0);
	free(scene);
	return 0;
}

/* count proxies as proxy_server; with an identity of its own, or to join. */
static struct agent_config config_for(
	struct scene *scene, const char *const *servers, size_t count)
{
	struct registration *registration = xcalloc(1, sizeof(*registration));
	static const char *addrs[2];

	strcpy(registration->agent_id, AGENT_ID);
	strcpy(registration->name, "db-1");
	registration->services = xcalloc(2, sizeof(registration->services[0]));
	registration->service_count = 2;
	strcpy(registration->services[0].name, "echo");
	strcpy(registration->services[0].type, "node");
	registration->services[0].port = 7;
	strcpy(registration->services[1].name, "down");
	strcpy(registration->services[1].type, "db");
	registration->services[1].port = 8;
	addrs[0] = scene->echo_addr;
	addrs[1] = "127.0.0.1:1";
	return (struct agent_config){
		.loop = scene->loop,
		.resolver = scene->resolver,
		.hub = scene->hub,
		.tunnel = settings,
		.metrics = &scene->metrics,
		.cluster = FAKE_CLUSTER,
		.servers = servers,
		.server_count = count,
		.registration = registration,
		.service_addrs = addrs,
	};
}

static void start(struct scene *scene, struct agent_config *config)
{
	char *error = NULL;

	scene->agent = agent_new(config, &error);
	if (!scene->agent)
		fail_msg("%s", error);
}

/* An agent with a certificate, and proxy 0 as its proxy_server. */
static void start_with_identity(struct scene *scene)
{
	const char *servers[] = {scene->proxies[0].addr};
	struct agent_config config = config_for(scene, servers, 1);

	config.identity = fake_identity(&scene->ca, scene->directory, AGENT_ID,
		"Node", "db-1", time(NULL) - 10, 3600);
	start(scene, &config);
	tls_identity_unref(config.identity);
}

static void test_mesh_has_a_tunnel_to_every_proxy(void **state)
{
	struct scene *scene = *state;

	start_with_identity(scene);
	wait_until(scene, tunnels(scene) == 3);
	for (int i = 0; i < PROXIES; i++)
		assert_int_equal(scene->proxies[i].tunnel_count, 1);
	wait_until(scene, scene->proxies[2].agent_name[0]);
	assert_string_equal(scene->proxies[2].agent_name, "db-1");
	assert_null(agent_missing(scene->agent));
	hold_for(scene, 300, tunnels(scene) == 3);
}

static void test_peering_has_as_many_as_asked_for(void **state)
{
	struct scene *scene = *state;

	set_strategy(scene, DISCOVERY_PROXY_PEERING, 1);
	start_with_identity(scene);
	wait_until(scene, holder(scene));
	hold_for(scene, 500, tunnels(scene) == 1);
	set_strategy(scene, DISCOVERY_PROXY_PEERING, 2);
	push_all(scene);
	wait_until(scene, tunnels(scene) == 2);
	hold_for(scene, 300, tunnels(scene) == 2);
}

static void test_a_change_of_strategy_is_followed(void **state)
{
	struct scene *scene = *state;

	set_strategy(scene, DISCOVERY_PROXY_PEERING, 1);
	start_with_identity(scene);
	wait_until(scene, tunnels(scene) == 1);
	/* one voice opens to all */
	scene->records[2].strategy = DISCOVERY_AGENT_MESH;
	push_all(scene);
	wait_until(scene, tunnels(scene) == 3);
	/* and as long as there is one, nothing is closed */
	set_strategy(scene, DISCOVERY_PROXY_PEERING, 1);
	scene->records[0].strategy = DISCOVERY_AGENT_MESH;
	push_all(scene);
	hold_for(scene, STRATEGY_SURPLUS_MS + 500, tunnels(scene) == 3);
	scene->records[0].strategy = DISCOVERY_PROXY_PEERING;
	push_all(scene);
	wait_until(scene, tunnels(scene) == 1);
	hold_for(scene, 300, tunnels(scene) == 1);
}

/* Proxies but that one. */
static void set_unpublished(struct scene *scene, const struct fake_proxy *but)
{
	for (int i = 0; i < PROXIES; i++)
		scene->proxies[i].unpublished = &scene->proxies[i] != but;
}

static void publish_all(struct scene *scene)
{
	for (int i = 0; i < PROXIES; i++)
		fake_publish(&scene->proxies[i]);
}

static void test_a_draining_proxy_is_left_when_another_is_published(
	void **state)
{
	struct scene *scene = *state;
	struct fake_proxy *first;

	set_strategy(scene, DISCOVERY_PROXY_PEERING, 1);
	start_with_identity(scene);
	wait_until(scene, holder(scene));
	first = holder(scene);
	set_unpublished(scene, first);
	scene->records[first - scene->proxies].draining = true;
	push_all(scene);
	wait_until(scene, tunnels(scene) == 2);
	hold_for(scene, STRATEGY_LEAVE_MS + 500,
		tunnels(scene) == 2 && first->tunnel_count == 1);
	publish_all(scene);
	wait_until(scene, tunnels(scene) == 1 && !first->tunnel_count);
	/* serving again, nothing is to be done */
	scene->records[first - scene->proxies].draining = false;
	push_all(scene);
	hold_for(scene, 500, tunnels(scene) == 1);
}

static void test_who_is_asked_to_move_goes_where_it_was_told(void **state)
{
	struct scene *scene = *state;
	struct fake_proxy *from, *to;

	set_strategy(scene, DISCOVERY_PROXY_PEERING, 1);
	start_with_identity(scene);
	wait_until(scene, holder(scene));
	from = holder(scene);
	to = &scene->proxies[(from - scene->proxies + 1) % PROXIES];
	fake_ask_to_move(from, to->id);
	wait_until(scene, to->tunnel_count == 1);
	assert_int_equal(from->tunnel_count, 1);
	wait_until(scene, !from->tunnel_count);
	assert_int_equal(from->moved, 200);
	hold_for(scene, 500, tunnels(scene) == 1 && to->tunnel_count == 1);
	/* with a tunnel to each there is nowhere to go */
	set_strategy(scene, DISCOVERY_AGENT_MESH, 0);
	push_all(scene);
	wait_until(scene, tunnels(scene) == 3);
	fake_ask_to_move(to, from->id);
	wait_until(scene, to->moved);
	assert_int_equal(to->moved, 409);
	fake_post(to, "/v1/move", "{\"to\": 7}", fake_on_moved);
	wait_until(scene, to->moved == 400);
	hold_for(scene, 300, tunnels(scene) == 3);
}

static void test_a_lost_proxy_is_replaced_and_comes_back(void **state)
{
	struct scene *scene = *state;
	struct fake_proxy *lost;
	int64_t began;

	set_strategy(scene, DISCOVERY_PROXY_PEERING, 1);
	start_with_identity(scene);
	wait_until(scene, holder(scene));
	lost = holder(scene);
	began = loop_now(scene->loop);
	fake_proxy_stop(lost);
	wait_until(scene, tunnels(scene) == 1 && !lost->tunnel_count);
	assert_true(loop_now(scene->loop) - began < 5000);
	set_strategy(scene, DISCOVERY_AGENT_MESH, 0);
	push_all(scene);
	wait_until(scene, tunnels(scene) == 2);
	fake_proxy_listen(lost);
	wait_until(scene, tunnels(scene) == 3);
}

static void test_a_proxy_that_hangs_does_not_hold_up_the_others(void **state)
{
	struct scene *scene = *state;
	const char *servers[] = {
		scene->proxies[0].addr, scene->proxies[1].addr};
	struct agent_config config = config_for(scene, servers, 2);
	int64_t began = loop_now(scene->loop);

	scene->proxies[0].silent = true;
	scene->proxies[2].silent = true;
	config.identity = fake_identity(&scene->ca, scene->directory, AGENT_ID,
		"Node", "db-1", time(NULL) - 10, 3600);
	start(scene, &config);
	wait_until(scene, scene->proxies[1].tunnel_count == 1);
	assert_true(loop_now(scene->loop) - began <
		    POOL_INTRODUCTION_MS + 3 * TRACKER_HEDGE_MS + 500);
	tls_identity_unref(config.identity);
}

#define BUSY                                                     \
	"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n" \
	"Content-Length: 0\r\nConnection: close\r\n\r\n"

static int64_t failures(const struct scene *scene, enum connect_failure why)
{
	return metric_get(&scene->metrics, SERIES_CONNECT_FAILURES + why);
}

static void test_a_busy_proxy_is_left_alone_and_has_not_failed(void **state)
{
	struct scene *scene = *state;
	struct fake_proxy *proxy = &scene->proxies[0];
	unsigned had;

	scene->fleet.proxy_count = 1;
	proxy->plain = BUSY;
	start_with_identity(scene);
	wait_until(scene, failures(scene, CONNECT_BUSY) == 1);
	had = proxy->connections;
	hold_for(scene, 900, proxy->connections == had);
	wait_until(scene, failures(scene, CONNECT_BUSY) == 2);
	proxy->plain = NULL;
	wait_until(scene, tunnels(scene) == 1);
	assert_int_equal(failures(scene, CONNECT_TLS), 0);
	assert_int_equal(failures(scene, CONNECT_UNREACHABLE), 0);
}

static void test_the_next_address_of_a_busy_one_is_tried(void **state)
{
	struct scene *scene = *state;

	/* the first address of 1 is busy */
	scene->fleet.proxy_count = 2;
	strcpy(scene->records[1].public_addr[0], scene->proxies[2].addr);
	strcpy(scene->records[1].public_addr[1], scene->proxies[1].addr);
	scene->records[1].public_addr_count = 2;
	scene->proxies[2].plain = BUSY;
	start_with_identity(scene);
	wait_until(scene, tunnels(scene) == 2);
	assert_int_equal(scene->proxies[1].tunnel_count, 1);
	assert_true(scene->proxies[2].connections > 0);
}

static void test_reconnect_forgets_all_waits(void **state)
{
	struct scene *scene = *state;
	struct fake_proxy *proxy = &scene->proxies[0];

	scene->fleet.proxy_count = 1;
	proxy->plain = "HTTP/1.1 503 Service Unavailable\r\n"
		       "Retry-After: 70\r\n\r\n";
	start_with_identity(scene);
	wait_until(scene, failures(scene, CONNECT_BUSY) == 1);
	proxy->plain = NULL;
	agent_reconnect(scene->agent);
	wait_until(scene, tunnels(scene) == 1); /* in 20 s */
	/* what stands is left alone */
	agent_reconnect(scene->agent);
	hold_for(scene, 200, tunnels(scene) == 1);
	assert_int_equal(metric_get(&scene->metrics, SERIES_TUNNELS_OPENED), 1);
}

static void test_reconnect_drops_what_hangs(void **state)
{
	struct scene *scene = *state;
	struct fake_proxy *proxy = &scene->proxies[0];
	int64_t began;

	scene->fleet.proxy_count = 1;
	proxy->silent = true;
	start_with_identity(scene);
	/* the question for the fleet, and then an attempt at a tunnel */
	wait_until(scene, proxy->connections == 2);
	proxy->silent = false;
	began = loop_now(scene->loop);
	agent_reconnect(scene->agent);
	wait_until(scene, tunnels(scene) == 1);
	/* the attempt alone would hang for longer */
	assert_true(loop_now(scene->loop) - began < CONNECT_HANDSHAKE_MS / 2);
}

static void test_another_plain_answer_is_a_failure(void **state)
{
	struct scene *scene = *state;

	scene->fleet.proxy_count = 1;
	scene->proxies[0].plain = "HTTP/1.1 400 Bad Request\r\n\r\n";
	start_with_identity(scene);
	wait_until(scene, failures(scene, CONNECT_TLS) >= 1);
	assert_int_equal(failures(scene, CONNECT_BUSY), 0);
	scene->proxies[0].plain = NULL;
	wait_until(scene, tunnels(scene) == 1);
}

static void test_a_proxy_we_have_is_refused_quietly(void **state)
{
	struct scene *scene = *state;

	/* the address of 1 leads to 0, as a load balancer may */
	strcpy(scene->records[1].public_addr[0], scene->proxies[0].addr);
	scene->fleet.proxy_count = 2;
	start_with_identity(scene);
	wait_until(scene,
		metric_get(&scene->metrics,
			SERIES_CONNECT_FAILURES + CONNECT_UNWANTED) >= 2);
	assert_int_equal(scene->proxies[0].tunnel_count, 1);
	assert_int_equal(tunnels(scene), 1);
}

static void test_only_a_proxy_is_spoken_to(void **state)
{
	struct scene *scene = *state;
	static const char *const roles[] = {"Node", "Auth"};

	for (int i = 0; i < 2; i++) {
		fake_proxy_deinit(&scene->proxies[i]);
		fake_proxy_init(&scene->proxies[i], scene->loop, &scene->ca,
			scene->directory, ids[i], roles[i]);
	}
	{
		const char *servers[] = {
			scene->proxies[0].addr, scene->proxies[1].addr};
		struct agent_config config = config_for(scene, servers, 2);

		config.identity = fake_identity(&scene->ca, scene->directory,
			AGENT_ID, "Node", "db-1", time(NULL) - 10, 3600);
		start(scene, &config);
		tls_identity_unref(config.identity);
	}
	wait_until(scene,
		metric_get(&scene->metrics,
			SERIES_CONNECT_FAILURES + CONNECT_STRANGER) >= 3);
	assert_int_equal(tunnels(scene) + scene->proxies[0].tunnel_count, 0);
}

static void test_another_ca_is_refused(void **state)
{
	struct scene *scene = *state;
	struct fake_ca other;
	const char *servers[] = {scene->proxies[0].addr};
	struct agent_config config = config_for(scene, servers, 1);

	fake_ca_init(&other);
	config.identity = fake_identity(&other, scene->directory, AGENT_ID,
		"Node", "db-1", time(NULL) - 10, 3600);
	start(scene, &config);
	wait_until(scene,
		metric_get(&scene->metrics,
			SERIES_CONNECT_FAILURES + CONNECT_STRANGER) >= 1);
	assert_int_equal(tunnels(scene), 0);
	tls_identity_unref(config.identity);
	fake_ca_deinit(&other);
}

static void write_token(struct scene *scene, const char *token, char *path)
{
	fake_write(scene->directory, "token", token);
	sprintf(path, "%s/token", scene->directory);
}

static void test_joins_with_a_token_and_keeps_what_it_got(void **state)
{
	struct scene *scene = *state;
	const char *servers[] = {scene->proxies[0].addr};
	struct agent_config config = config_for(scene, servers, 1);
	char store[128], path[160], *missing;
	struct stat st;

	snprintf(store, sizeof(store), "%s/agent", scene->directory);
	write_token(scene, "good\n", path);
	config.directory = store;
	config.token_file = path;
	config.ca_pin = scene->ca.pin;
	start(scene, &config);
	missing = agent_missing(scene->agent);
	assert_string_equal(missing, "certificate: not joined yet\n");
	free(missing);
	wait_until(scene, tunnels(scene) == 3);
	assert_int_equal(scene->proxies[0].joins, 1);
	snprintf(path, sizeof(path), "%s/key.pem", store);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);

	/* started again it needs no token */
	scene->stopped = false;
	agent_stop(scene->agent, 0, on_stopped, scene);
	wait_until(scene, scene->stopped && tunnels(scene) == 0);
	agent_free(scene->agent);
	scene->stopped = false;
	config = config_for(scene, servers, 1);
	config.directory = store;
	start(scene, &config);
	wait_until(scene, tunnels(scene) == 3);
	assert_int_equal(scene->proxies[0].joins, 1);
}

static void test_a_wrong_token_is_tried_again(void **state)
{
	struct scene *scene = *state;
	const char *servers[] = {scene->proxies[0].addr};
	struct agent_config config = config_for(scene, servers, 1);
	char store[128], path[160];

	snprintf(store, sizeof(store), "%s/agent", scene->directory);
	write_token(scene, "bad", path);
	config.directory = store;
	config.token_file = path;
	config.ca_pin = scene->ca.pin;
	start(scene, &config);
	wait_until(scene, scene->proxies[0].joins == 1);
	write_token(scene, "good", path);
	wait_until(scene, tunnels(scene) == 3);
	assert_int_equal(scene->proxies[0].joins, 2);
}

static void test_a_wrong_pin_gets_no_token(void **state)
{
	struct scene *scene = *state;
	const char *servers[] = {scene->proxies[0].addr};
	struct agent_config config = config_for(scene, servers, 1);
	struct fake_ca other;
	char store[128], path[160];

	fake_ca_init(&other);
	snprintf(store, sizeof(store), "%s/agent", scene->directory);
	write_token(scene, "good", path);
	config.directory = store;
	config.token_file = path;
	config.ca_pin = other.pin;
	start(scene, &config);
	wait_until(scene, scene->proxies[0].connections == 2);
	assert_int_equal(scene->proxies[0].joins, 0);
	fake_ca_deinit(&other);
}

static void test_renews_at_two_thirds_with_the_same_key(void **state)
{
	struct scene *scene = *state;
	const char *servers[] = {scene->proxies[0].addr};
	struct agent_config config = config_for(scene, servers, 1);
	struct tls_identity *old, *new;
	char *error;
	int64_t now = time(NULL);

	old = fake_identity(&scene->ca, scene->directory, AGENT_ID, "Node",
		"db-1", now - 200, 290);
	config.directory = scene->directory;
	start(scene, &config);
	wait_until(scene, scene->proxies[0].renewals == 1);
	wait_until(scene,
		metric_get(&scene->metrics, SERIES_NOT_AFTER) > now + 1000);
	new = tls_identity_load(scene->directory, &error);
	assert_non_null(new);
	assert_int_equal(EVP_PKEY_eq(old->key, new->key), 1);
	assert_int_not_equal(X509_cmp(old->leaf, new->leaf), 0);
	assert_int_equal(scene->proxies[0].joins, 0);
	wait_until(scene, tunnels(scene) == 3);
	tls_identity_unref(old);
	tls_identity_unref(new);
}

static void test_nothing_to_start_with_is_an_error(void **state)
{
	struct scene *scene = *state;
	const char *servers[] = {"127.0.0.1:1"};
	struct agent_config config = config_for(scene, servers, 1);
	char *error = NULL;

	config.directory = "/nonexistent";
	assert_null(agent_new(&config, &error));
	assert_non_null(strstr(error, "join.token_file"));
	free(error);
	config = config_for(scene, servers, 1);
	config.identity = fake_identity(&scene->ca, scene->directory, AGENT_ID,
		"Proxy", NULL, time(NULL) - 10, 3600);
	assert_null(agent_new(&config, &error));
	assert_string_equal(error, "own certificate: role is not Node");
	free(error);
	tls_identity_unref(config.identity);
}

/* --- streams --- */

struct stream_result {
	int status;
	char reason[256];
	bool ended;
	int error;
	uint64_t received;
	struct loop *loop;
	int fd; /* what the joined bytes come out of */
};

static void on_response(
	struct tunnel_stream *stream, void *arg, int status, const char *text)
{
	struct stream_result *result = arg;
	int fds[2];

	result->status = status;
	snprintf(result->reason, sizeof(result->reason), "%s", text);
	if (status != 200)
		return;
	assert_int_equal(sock_pair(fds), 0);
	result->fd = fds[0];
	shutdown(result->fd, SHUT_WR);
	tunnel_stream_join(stream, chan_new_fd(result->loop, fds[1]), NULL, 0);
}

static void on_stream_end(struct tunnel_stream *stream, void *arg,
	const struct tunnel_stream_result *ended)
{
	struct stream_result *result = arg;

	result->ended = true;
	result->error = ended->error;
	result->received = ended->received;
}

static const struct tunnel_stream_ops stream_ops = {
	.on_response = on_response,
	.on_end = on_stream_end,
};

static struct stream_result dial(struct scene *scene, const char *authority)
{
	const struct tunnel_header headers[] = {
		{"peerway-source", "192.0.2.1:99"}, {"peerway-user", "alice"}};
	struct stream_result result = {.loop = scene->loop, .fd = -1};
	struct tunnel_stream *stream;

	assert_int_equal(
		tunnel_connect(scene->proxies[0].tunnels[0], authority, headers,
			2, 15000, &stream_ops, &result, &stream),
		0);
	wait_until(scene, result.ended);
	return result;
}

static void test_streams_reach_announced_services_only(void **state)
{
	struct scene *scene = *state;
	struct stream_result result;
	char buf[16];

	scene->fleet.proxy_count = 1;
	start_with_identity(scene);
	wait_until(scene, scene->proxies[0].agent_name[0]);

	result = dial(scene, "echo:7");
	assert_int_equal(result.status, 200);
	assert_int_equal(result.error, 0);
	assert_int_equal(read(result.fd, buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "hello", 5);
	close(result.fd);

	result = dial(scene, "web:80");
	assert_int_equal(result.status, 404);
	assert_string_equal(result.reason, "no service web is announced here");
	result = dial(scene, "echo:22");
	assert_int_equal(result.status, 404);
	assert_string_equal(result.reason, "service echo has port 7, not 22");
	result = dial(scene, "127.0.0.1:22");
	assert_int_equal(result.status, 404);
	result = dial(scene, "down:8");
	assert_int_equal(result.status, 502);
	assert_string_equal(result.reason, "cannot connect to service down: "
					   "127.0.0.1:1: Connection refused");
	assert_int_equal(tunnels(scene), 1);
	wait_until(scene, metric_get(&scene->metrics, SERIES_STREAMS) == 0);
}

static void test_other_services_are_announced(void **state)
{
	struct scene *scene = *state;
	struct agent_config config = config_for(scene, NULL, 0);
	struct fake_proxy *proxy = &scene->proxies[0];
	struct stream_result result;

	scene->fleet.proxy_count = 1;
	start_with_identity(scene);
	wait_until(scene, proxy->agent_name[0]);

	/* the same again is no news */
	assert_false(agent_announce(
		scene->agent, config.registration, config.service_addrs));
	config = config_for(scene, NULL, 0);
	strcpy(config.registration->services[0].name, "new");
	strcpy(config.registration->name, "ignored");
	assert_true(agent_announce(
		scene->agent, config.registration, config.service_addrs));
	wait_until(scene, proxy->changes == 1);
	assert_non_null(strstr(proxy->change, "\"name\":\"new\""));
	assert_non_null(strstr(proxy->change, "\"name\":\"db-1\""));
	assert_null(strchr(proxy->change, '\n'));
	result = dial(scene, "echo:7");
	assert_int_equal(result.status, 404);
	result = dial(scene, "new:7");
	assert_int_equal(result.status, 200);
	close(result.fd);
	hold_for(scene, 100, proxy->changes == 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		CASE(test_mesh_has_a_tunnel_to_every_proxy),
		CASE(test_peering_has_as_many_as_asked_for),
		CASE(test_a_change_of_strategy_is_followed),
		CASE(test_a_draining_proxy_is_left_when_another_is_published),
		CASE(test_who_is_asked_to_move_goes_where_it_was_told),
		CASE(test_a_lost_proxy_is_replaced_and_comes_back),
		CASE(test_a_proxy_that_hangs_does_not_hold_up_the_others),
		CASE(test_a_busy_proxy_is_left_alone_and_has_not_failed),
		CASE(test_the_next_address_of_a_busy_one_is_tried),
		CASE(test_reconnect_forgets_all_waits),
		CASE(test_reconnect_drops_what_hangs),
		CASE(test_another_plain_answer_is_a_failure),
		CASE(test_a_proxy_we_have_is_refused_quietly),
		CASE(test_only_a_proxy_is_spoken_to),
		CASE(test_another_ca_is_refused),
		CASE(test_joins_with_a_token_and_keeps_what_it_got),
		CASE(test_a_wrong_token_is_tried_again),
		CASE(test_a_wrong_pin_gets_no_token),
		CASE(test_renews_at_two_thirds_with_the_same_key),
		CASE(test_nothing_to_start_with_is_an_error),
		CASE(test_streams_reach_announced_services_only),
		CASE(test_other_services_are_announced),
	};

	log_init("test_agent", getenv("TEST_LOG") ? LOG_DEBUG : LOG_ERROR,
		false);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
