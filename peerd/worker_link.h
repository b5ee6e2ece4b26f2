/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * peerd.sock: the proxy's workers of this host, and peerctl. A worker is named
 * by the id of its link, which is new whenever it connects anew.
 */

#include "peerd/peerd.h"
#include "proto/ipc.h"
#include "ipc.pb-c.h"

struct worker_links;

/* Listens; NULL and errno. */
struct worker_links *worker_links_new(struct peerd *peerd, const char *path);
/* Closes all links, without telling anyone. */
void worker_links_free(struct worker_links *links);

/* Takes fd (-1: none). 0; -ENOTCONN when the worker has gone; -EMSGSIZE. */
int worker_links_send(struct worker_links *links, uint64_t link,
	enum ipc_type type, const ProtobufCMessage *payload, int fd);
/* Its number, from 0; 0 as well when it has gone. */
uint32_t worker_links_number(const struct worker_links *links, uint64_t link);
size_t worker_links_count(const struct worker_links *links);
/* Whether one of them takes nothing new and will end. */
bool worker_links_draining(const struct worker_links *links);
/* Calls fn with each worker's link and HELLO. */
void worker_links_each(struct worker_links *links,
	void (*fn)(void *arg, uint64_t link, const Peerway__Ipc__Hello *hello),
	void *arg);
