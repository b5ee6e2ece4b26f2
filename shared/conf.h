/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The one YAML file of a host (peerway.yaml(5)), loaded whole and checked
 * whole: types by libcyaml, exact lines by a libyaml pass, ranges by a table.
 * An error is one line, `file:line: key: what is wrong`.
 *
 * Absent keys have their defaults after loading; strings are never NULL
 * (empty instead); times are milliseconds. A service is enabled when its
 * section is there and does not say otherwise. Addresses to listen at are
 * numeric with a port; others may be names. Those that are handed on as they
 * are have their usual port after loading, given or not: auth_servers, a
 * proxy's public ones.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum conf_strategy { CONF_AGENT_MESH, CONF_PROXY_PEERING };
enum conf_log_format { CONF_LOG_TEXT, CONF_LOG_JSON };

struct conf_tunnel_strategy {
	enum conf_strategy type;
	uint32_t agent_connection_count;
};

struct conf_etcd_tls {
	bool enabled; /* the section is there */
	char *ca;     /* files; empty: the system's CAs */
	char *cert;
	char *key;
};

struct conf_etcd_user {
	char *name;
	char *password_file;
};

struct conf_storage {
	char *type; /* "sqlite" or "etcd" */
	/* of etcd */
	char **endpoints;
	unsigned endpoints_count;
	char *prefix;
	uint32_t compaction; /* ms; 0: left to etcd */
	struct conf_etcd_tls tls;
	struct conf_etcd_user user;
};

struct conf_auth {
	bool enabled;
	char *listen_addr;
	char **public_addr; /* names and addresses in authd's certificate */
	unsigned public_addr_count;
	struct conf_tunnel_strategy tunnel_strategy;
	bool tunnel_strategy_set; /* the file says so itself */
	bool keep_alive_set;
	uint32_t keep_alive_interval; /* ms */
	uint32_t keep_alive_count_max;
	uint32_t lease_ttl; /* ms */
	char *ca_key_file;  /* empty: the CAs' keys are stored as they are */
	struct conf_storage storage;
};

struct conf_tcp_listener {
	char *listen;
	char *target;
	char **allow_from; /* CIDR; empty: 127.0.0.0/8 and ::1 */
	unsigned allow_from_count;
};

struct conf_rebalance {
	uint32_t threshold; /* percent over the average */
	uint32_t rate;	    /* agents a second; 0: never */
};

#define CONF_PEER_CONNECTIONS_MAX 8

struct conf_proxy {
	bool enabled;
	char *listen_addr;
	char *tunnel_listen_addr;
	char *peer_listen_addr;
	char *peer_public_addr;
	char **public_addr;
	unsigned public_addr_count;
	char **tunnel_public_addr;
	unsigned tunnel_public_addr_count;
	uint32_t workers;
	struct conf_tcp_listener *tcp_listeners;
	unsigned tcp_listeners_count;
	uint32_t dial_timeout;		/* ms, whole dial phase */
	uint32_t handshake_timeout;	/* ms, TLS and request head */
	uint32_t max_handshakes;	/* per worker, at once */
	uint32_t max_tunnel_handshakes; /* the same, of agents */
	uint32_t max_clients;		/* per worker */
	uint32_t max_tunnels;		/* per worker */
	uint32_t drain_timeout;		/* ms */
	struct conf_rebalance rebalance;
	char *min_tls;		    /* of 3021: "1.2" or "1.3" */
	uint64_t stream_buffer_max; /* bytes held for one stalled stream */
	uint64_t buffer_max;	    /* bytes held per worker */
	/* bytes, peerd's: in gRPC's hands, and again what may wait for readers
	 */
	uint64_t peer_memory_max;
	uint32_t peer_connections; /* TCP connections to each peer */
	bool peer_plain;	   /* announces no extensions to peers */
	char *region;
	char *zone;
	char *group;
	uint64_t generation;
};

struct conf_label {
	char *name;
	char *value;
};

struct conf_service {
	char *name;
	char *type; /* node, db, app, ... */
	char *addr;
};

struct conf_agent {
	bool enabled;
	char *name; /* default: the hostname up to the first dot */
	char **proxy_server;
	unsigned proxy_server_count;
	struct conf_label *labels;
	unsigned labels_count;
	struct conf_service *services;
	unsigned services_count;
	uint32_t max_streams; /* MAX_CONCURRENT_STREAMS of each tunnel */
	char *https_proxy;    /* a secret; empty: of the environment */
	uint32_t reconnect_max_interval; /* ms between attempts, at most */
	char *region;
	char *zone;
	uint32_t surplus_timeout; /* ms, for streams of a surplus tunnel */
};

struct conf_join {
	char *token_file;
	char *ca_pin;
};

struct conf_identity {
	char *cert;
	char *key;
	char *ca;      /* host CA */
	char *user_ca; /* proxy only */
};

struct conf_log {
	char *level;
	enum conf_log_format format;
};

struct conf_diag { /* empty: no diagnostics */
	char *authd;
	char *proxy;
	char *peerd;
	char *routed;
	char *agent;
};

struct conf {
	char *cluster_name;
	char *data_dir;
	char *run_dir;
	char *host_uuid;
	char **auth_servers;
	unsigned auth_servers_count;
	struct conf_join join;
	struct conf_identity identity;
	struct conf_log log;
	struct conf_diag diag;
	struct conf_auth auth;
	struct conf_proxy proxy;
	struct conf_agent agent;
};

/* Gives the configuration, or NULL and *error_out (gives, to free()): one line
 * without newline. Opens nothing but the file (at most 1 MiB). */
struct conf *conf_load(const char *path, char **error_out);
/* The same of a file that has another name for people. */
struct conf *conf_load_as(const char *path, const char *name, char **error_out);
/* The same from bytes; name stands for the file in errors. For tests, fuzzing.
 */
struct conf *conf_parse(
	const char *name, const uint8_t *text, size_t len, char **error_out);
void conf_free(struct conf *conf);

/* The host's uuid: conf->host_uuid, or the one in data_dir/host_uuid, made once
 * (O_EXCL) by whichever daemon comes first. 0 or -errno. */
#define CONF_UUID_SIZE 37
int conf_host_uuid(const struct conf *conf, char uuid_out[CONF_UUID_SIZE]);
