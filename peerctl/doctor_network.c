/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor's checks over the network: names, the auth servers, an agent's
 * proxies. All addresses of a check are asked at once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peerctl/doctor.h"
#include "peerctl/probe.h"
#include "shared/alloc.h"
#include "shared/identity.h"
#include "shared/sock.h"

#define PROBES_MAX 400 /* six lists of 64, and two single ones */
#define AUTH_PORT 3025
#define PROXY_PORT 3080

/* ---- names ---- */

struct names {
	struct probe probes[PROBES_MAX];
	const char *keys[PROBES_MAX];
	unsigned count;
};

static void add_name(struct names *names, const char *key, const char *addr)
{
	struct sock_addr numeric;

	if (!*addr || names->count == PROBES_MAX ||
		sock_parse(addr, 1, &numeric) == 0)
		return;
	names->keys[names->count] = key;
	names->probes[names->count++] =
		(struct probe){.addr = addr, .port = 1, .lookup_only = true};
}

static void add_names(
	struct names *names, const char *key, char *const *list, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		add_name(names, key, list[i]);
}

static void collect(const struct conf *conf, struct names *names)
{
	const struct conf_proxy *proxy = &conf->proxy;

	if (conf->auth.enabled) {
		add_names(names, "auth_service.public_addr",
			conf->auth.public_addr, conf->auth.public_addr_count);
		add_names(names, "auth_service.storage.endpoints",
			conf->auth.storage.endpoints,
			conf->auth.storage.endpoints_count);
	}
	if (proxy->enabled) {
		add_names(names, "auth_servers", conf->auth_servers,
			conf->auth_servers_count);
		add_names(names, "proxy_service.public_addr",
			proxy->public_addr, proxy->public_addr_count);
		add_names(names, "tunnel_public_addr",
			proxy->tunnel_public_addr,
			proxy->tunnel_public_addr_count);
		add_name(names, "peer_public_addr", proxy->peer_public_addr);
	}
	if (conf->agent.enabled)
		add_names(names, "proxy_server", conf->agent.proxy_server,
			conf->agent.proxy_server_count);
}

static void judge_name(
	struct doctor *doctor, const char *key, const struct probe *probe)
{
	if (probe->error)
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("%s of %s is not found: %s", probe->addr, key,
				probe->error),
			xstrdup("correct the name, or its record; "
				"/etc/resolv.conf says whom this host asks"));
	else
		doctor_add(doctor, DOCTOR_OK,
			xasprintf("%s of %s is %s%s", probe->addr, key,
				probe->resolved,
				probe->count > 8 ? ", ..." : ""),
			NULL);
}

void doctor_check_names(struct doctor *doctor)
{
	struct names *names = xcalloc(1, sizeof(*names));

	collect(doctor->conf, names);
	probe_run(names->probes, names->count, DOCTOR_WAIT_MS);
	for (unsigned i = 0; i < names->count; i++) {
		judge_name(doctor, names->keys[i], &names->probes[i]);
		probe_deinit(&names->probes[i]);
	}
	if (!names->count)
		doctor_add(doctor, DOCTOR_OK,
			xstrdup("the configuration has addresses only"), NULL);
	free(names);
}

/* ---- servers ---- */

struct servers {
	const char *what; /* "auth server" */
	char *const *list;
	unsigned count;
	uint16_t port;
	const char *alpn;
	enum identity_role role;
	const char *advice;
};

/* As this host trusts: by its certificate's CA, or, before it has joined, by
 * the pin. NULL: neither. */
static SSL_CTX *make_ctx(const struct doctor *doctor, bool show_certificate)
{
	const struct conf *conf = doctor->conf;
	char *error = NULL;
	SSL_CTX *ctx = NULL;

	if (doctor->identity) {
		struct tls_identity trust = *doctor->identity;

		if (!show_certificate) {
			trust.leaf = NULL;
			trust.key = NULL;
		}
		ctx = tls_client_ctx(&trust, &error);
	} else if (*conf->join.ca_pin) {
		ctx = tls_pin_ctx(conf->join.ca_pin, &error);
	}
	free(error);
	return ctx;
}

/* NULL: the certificate is one of such a server of this cluster. */
static const char *fault_of(const struct doctor *doctor,
	const struct servers *servers, const struct probe *probe)
{
	const char *why = NULL;
	struct host_identity who;

	if (!probe->leaf)
		return "it sent no certificate";
	if (identity_of_host(
		    probe->leaf, doctor->conf->cluster_name, &who, &why) < 0)
		return why;
	return who.roles & servers->role ? NULL
					 : "its certificate has another role";
}

static void judge_server(struct doctor *doctor, const struct servers *servers,
	const struct probe *probe)
{
	const char *fault = NULL;

	if (!probe->error && probe->ctx)
		fault = fault_of(doctor, servers, probe);
	if (probe->error)
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("%s %s cannot be reached: %s", servers->what,
				probe->addr, probe->error),
			xstrdup(servers->advice));
	else if (!probe->ctx)
		doctor_add(doctor, DOCTOR_WARN,
			xasprintf("%s %s can be connected to; whether it is of "
				  "this cluster is not known",
				servers->what, probe->addr),
			xstrdup("set join.ca_pin or identity"));
	else if (fault)
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("who answers at %s is no %s of the cluster "
				  "%s: %s",
				probe->addr, servers->what,
				doctor->conf->cluster_name, fault),
			xstrdup("correct the address"));
	else
		doctor_add(doctor, DOCTOR_OK,
			xasprintf("%s %s answers, verified, in %.0f ms",
				servers->what, probe->addr, probe->ms),
			NULL);
}

static void check_servers(struct doctor *doctor, const struct servers *servers)
{
	struct probe *probes = xcalloc(servers->count + 1, sizeof(*probes));
	char name[IDENTITY_SERVER_NAME_MAX];
	SSL_CTX *ctx = make_ctx(doctor, servers->role == IDENTITY_AUTH);

	identity_server_name(doctor->conf->cluster_name, name);
	for (unsigned i = 0; i < servers->count; i++)
		probes[i] = (struct probe){.addr = servers->list[i],
			.port = servers->port,
			.ctx = ctx,
			.name = name,
			.alpn = servers->alpn};
	probe_run(probes, servers->count, DOCTOR_WAIT_MS);
	for (unsigned i = 0; i < servers->count; i++) {
		judge_server(doctor, servers, &probes[i]);
		probe_deinit(&probes[i]);
	}
	SSL_CTX_free(ctx);
	free(probes);
}

void doctor_check_auth(struct doctor *doctor)
{
	check_servers(doctor,
		&(struct servers){
			.what = "auth server",
			.list = doctor->conf->auth_servers,
			.count = doctor->conf->auth_servers_count,
			.port = AUTH_PORT,
			.alpn = "h2",
			.role = IDENTITY_AUTH,
			.advice = "is authd running there (peerctl doctor), "
				  "and port 3025 open from here?",
		});
}

void doctor_check_proxies(struct doctor *doctor)
{
	const struct conf_agent *agent = &doctor->conf->agent;

	if (*agent->https_proxy) {
		doctor_add(doctor, DOCTOR_WARN,
			xstrdup("an HTTP proxy is in between: whether proxies "
				"can be reached through it is not looked at"),
			xstrdup("the agent's log and its /readyz say it"));
		return;
	}
	check_servers(doctor,
		&(struct servers){
			.what = "proxy",
			.list = agent->proxy_server,
			.count = agent->proxy_server_count,
			.port = PROXY_PORT,
			.alpn = "http/1.1",
			.role = IDENTITY_PROXY,
			.advice =
				"is the proxy running there, and port 3080 "
				"open from here? Behind a load balancer: does "
				"it pass TLS on untouched?",
		});
}
