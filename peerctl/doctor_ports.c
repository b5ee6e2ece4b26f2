/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor's check of ports: who listens where the configuration says. From
 * /proc/net/tcp and the descriptors of processes; those of other users' are
 * seen by root only.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peerctl/doctor.h"
#include "shared/alloc.h"
#include "shared/sock.h"

#define PIDS_MAX 66
#define LISTEN_STATE 0x0a
/* ::ffff: as /proc/net/tcp6 has it, in the host's order */
#define MAPPED "0000000000000000FFFF0000"

struct port {
	const char *key;
	const char *addr;
	const char *daemon; /* comm */
	int index;	    /* of status_daemons; -1: says no status */
};

/* ---- who listens ---- */

/* An address as /proc/net/tcp has it. */
static void hex_of(const struct sockaddr_storage *ss, char hex[40])
{
	const struct sockaddr_in *v4 = (const void *)ss;
	const struct sockaddr_in6 *v6 = (const void *)ss;
	uint32_t words[4];

	if (ss->ss_family == AF_INET) {
		sprintf(hex, "%08X", v4->sin_addr.s_addr);
		return;
	}
	memcpy(words, &v6->sin6_addr, sizeof(words));
	sprintf(hex, "%08X%08X%08X%08X", words[0], words[1], words[2],
		words[3]);
}

static bool is_any(const char *hex)
{
	return strspn(hex, "0") == strlen(hex);
}

/* The inode of a socket that listens there; 0: nobody does. */
static unsigned long find_in(
	const char *table, const char *wanted, unsigned wanted_port)
{
	char line[512];
	unsigned long found = 0;
	FILE *file = fopen(table, "re");

	while (file && !found && fgets(line, sizeof(line), file)) {
		char addr[40];
		unsigned port, state;
		unsigned long inode;

		if (sscanf(line,
			    " %*d: %39[0-9A-F]:%X %*[0-9A-F]:%*X %X %*s %*s "
			    "%*s %*d %*d %lu",
			    addr, &port, &state, &inode) == 4 &&
			state == LISTEN_STATE && port == wanted_port &&
			(is_any(addr) || is_any(wanted) ||
				!strcmp(addr, wanted)))
			found = inode;
	}
	if (file)
		fclose(file);
	return found;
}

static unsigned long find_listener(const char *text)
{
	struct sock_addr addr;
	unsigned long inode;
	char hex[40];
	char mapped[64];
	unsigned port;

	if (sock_parse(text, 0, &addr) < 0)
		return 0;
	hex_of(&addr.ss, hex);
	port = ntohs(((struct sockaddr_in *)&addr.ss)->sin_port);
	inode = find_in("/proc/net/tcp", hex, port);
	if (inode)
		return inode;
	/* gRPC listens at ::ffff:192.0.2.1 */
	if (addr.ss.ss_family == AF_INET && !is_any(hex)) {
		snprintf(mapped, sizeof(mapped), "%s%s", MAPPED, hex);
		return find_in("/proc/net/tcp6", mapped, port);
	}
	return find_in("/proc/net/tcp6", hex, port);
}

static bool holds(const char *pid, const char *wanted)
{
	char *path = xasprintf("/proc/%s/fd", pid);
	DIR *dir = opendir(path);
	struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir))) {
		char target[64];
		ssize_t len = readlinkat(
			dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		if (len <= 0)
			continue;
		target[len] = '\0';
		found = !strcmp(target, wanted);
	}
	if (dir)
		closedir(dir);
	free(path);
	return found;
}

static void read_comm(const char *pid, char comm[32])
{
	char *path = xasprintf("/proc/%s/comm", pid);
	FILE *file = fopen(path, "re");

	comm[0] = '\0';
	if (file && fgets(comm, 32, file))
		comm[strcspn(comm, "\n")] = '\0';
	if (file)
		fclose(file);
	free(path);
}

/* The first process that has the socket; 0: none that we may look into. */
static pid_t owner_of(unsigned long inode, char comm[32])
{
	char *wanted = xasprintf("socket:[%lu]", inode);
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	pid_t pid = 0;

	while (dir && !pid && (entry = readdir(dir))) {
		if (entry->d_name[0] < '1' || entry->d_name[0] > '9' ||
			!holds(entry->d_name, wanted))
			continue;
		pid = atoi(entry->d_name);
		read_comm(entry->d_name, comm);
	}
	if (dir)
		closedir(dir);
	free(wanted);
	return pid;
}

/* ---- judging ---- */

static bool is_ours(const struct doctor *doctor, const struct port *port,
	pid_t pid, const char *comm)
{
	pid_t pids[PIDS_MAX];
	unsigned count = port->index < 0 ? 0
					 : doctor_pids(doctor, port->index,
						   pids, PIDS_MAX);

	for (unsigned i = 0; i < count; i++)
		if (pids[i] == pid)
			return true;
	return !strcmp(comm, port->daemon);
}

static void add_free(struct doctor *doctor, const struct port *port, bool runs)
{
	if (runs)
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("%s runs, but does not listen at %s (%s)",
				port->daemon, port->addr, port->key),
			xasprintf("its log says why; if the address was "
				  "changed in the file: restart %s",
				port->daemon));
	else
		doctor_add(doctor, DOCTOR_OK,
			xasprintf("%s (%s) is free for %s", port->addr,
				port->key, port->daemon),
			NULL);
}

static void judge(struct doctor *doctor, const struct port *port)
{
	bool runs = port->index >= 0 && doctor->answers.of[port->index];
	unsigned long inode = find_listener(port->addr);
	char comm[32] = "";
	pid_t pid;

	if (!inode) {
		add_free(doctor, port, runs);
		return;
	}
	pid = owner_of(inode, comm);
	if (!pid)
		doctor_add(doctor, runs ? DOCTOR_OK : DOCTOR_WARN,
			xasprintf("somebody listens at %s (%s)", port->addr,
				port->key),
			xstrdup("look again as root to see who"));
	else if (is_ours(doctor, port, pid, comm))
		doctor_add(doctor, DOCTOR_OK,
			xasprintf("%s listens at %s (%s)", port->daemon,
				port->addr, port->key),
			NULL);
	else
		doctor_add(doctor, DOCTOR_FAIL,
			xasprintf("%s (%s) is taken by %s, pid %d, not by %s",
				port->addr, port->key, comm, (int)pid,
				port->daemon),
			xasprintf("stop that program, or give %s another port",
				port->key));
}

static bool peers_are_listened_for(const struct doctor *doctor)
{
	const char *strategy =
		status_text(doctor->answers.of[PEERD], "strategy");

	/* not known yet when peerd does not run */
	return *doctor->conf->proxy.peer_listen_addr &&
	       strcmp(strategy, "agent_mesh");
}

static void check_diag(struct doctor *doctor)
{
	const struct conf *conf = doctor->conf;
	const struct conf_diag *diag = &conf->diag;
	const struct {
		bool enabled;
		struct port port;
	} all[] = {
		{conf->auth.enabled,
			{"diag.authd", diag->authd, "authd", AUTHD}},
		{conf->proxy.enabled,
			{"diag.routed", diag->routed, "routed", ROUTED}},
		{conf->proxy.enabled,
			{"diag.peerd", diag->peerd, "peerd", PEERD}},
		{conf->proxy.enabled,
			{"diag.proxy", diag->proxy, "proxy", PROXY}},
		{conf->agent.enabled, {"diag.agent", diag->agent, "agent", -1}},
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].enabled && *all[i].port.addr)
			judge(doctor, &all[i].port);
}

void doctor_check_ports(struct doctor *doctor)
{
	const struct conf *conf = doctor->conf;
	const struct conf_proxy *proxy = &conf->proxy;

	if (conf->auth.enabled)
		judge(doctor, &(struct port){"auth_service.listen_addr",
				      conf->auth.listen_addr, "authd", AUTHD});
	if (proxy->enabled) {
		judge(doctor, &(struct port){"listen_addr", proxy->listen_addr,
				      "proxy", PROXY});
		judge(doctor,
			&(struct port){"tunnel_listen_addr",
				proxy->tunnel_listen_addr, "proxy", PROXY});
		if (peers_are_listened_for(doctor))
			judge(doctor, &(struct port){"peer_listen_addr",
					      proxy->peer_listen_addr, "peerd",
					      PEERD});
		for (unsigned i = 0; i < proxy->tcp_listeners_count; i++)
			judge(doctor, &(struct port){"tcp_listeners",
					      proxy->tcp_listeners[i].listen,
					      "proxy", PROXY});
	}
	check_diag(doctor);
}
