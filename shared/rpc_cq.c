/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The completion queue and the only threads this project starts itself. A
 * completion either runs in the queue's thread (RPC_INLINE: peerd's data path)
 * or is posted to the loop (RPC_ON_LOOP: everything else). Owns gRPC's life
 * from grpc_init() to grpc_shutdown().
 *
 * What is easily got wrong: a posted completion outlives the queue's thread.
 * rpc_cq_free() therefore turns the loop until the last of them has run.
 */

#include <assert.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <openssl/conf.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"
#include "shared/log.h"
#include "shared/rpc.h"

struct rpc_cq {
	struct loop *loop;
	grpc_completion_queue *queue;
	pthread_t *threads;
	unsigned thread_count;
	atomic_uint posted;	/* completions on their way to the loop */
	atomic_uint running;	/* threads */
	struct loop_task ended; /* wakes the loop when a thread has ended */
};

/* gRPC's own errors are the peer's or the network's business: whoever made
 * the call reports it with its context, so here they are only for debugging. */
static void on_grpc_log(gpr_log_func_args *args)
{
	const char *file = strrchr(args->file, '/');

	log_debug("grpc: %s place=%s:%d", args->message,
		file ? file + 1 : args->file, args->line);
}

static void on_posted(struct loop_task *task)
{
	struct rpc_tag *tag =
		(struct rpc_tag *)((char *)task -
				   offsetof(struct rpc_tag, task));

	atomic_fetch_sub(&tag->cq->posted, 1);
	tag->run(tag, tag->ok);
}

static void deliver(struct rpc_cq *cq, struct rpc_tag *tag, bool ok)
{
	if (tag->where == RPC_INLINE) {
		tag->run(tag, ok);
		return;
	}
	tag->ok = ok;
	tag->cq = cq;
	tag->task.run = on_posted;
	atomic_fetch_add(&cq->posted, 1);
	loop_post(cq->loop, &tag->task);
}

static void *run_completions(void *arg)
{
	struct rpc_cq *cq = arg;

	for (;;) {
		grpc_event event = grpc_completion_queue_next(
			cq->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);

		if (event.type == GRPC_QUEUE_SHUTDOWN)
			break;
		if (event.type == GRPC_OP_COMPLETE)
			deliver(cq, event.tag, event.success);
	}
	atomic_fetch_sub(&cq->running, 1);
	loop_post(cq->loop, &cq->ended);
	return NULL;
}

static void on_ended(struct loop_task *task)
{
}

void rpc_require_tls13(void)
{
	/* gRPC sets its own minimum of TLS 1.2 and ignores MinProtocol, but
	 * a protocol switched off by name stays off. */
	static const char text[] = "openssl_conf = all\n[all]\nssl_conf = ssl\n"
				   "[ssl]\nsystem_default = tls\n"
				   "[tls]\nProtocol = -TLSv1.2\n";
	BIO *bio;
	CONF *conf;
	long line;

	OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	bio = BIO_new_mem_buf(text, -1);
	conf = NCONF_new(NULL);
	if (!bio || !conf || NCONF_load_bio(conf, bio, &line) <= 0 ||
		CONF_modules_load(conf, NULL, 0) <= 0)
		fatal("tls 1.3 could not be required: openssl refused it");
	NCONF_free(conf);
	BIO_free(bio);
}

struct rpc_cq *rpc_cq_new(struct loop *loop, unsigned threads)
{
	struct rpc_cq *cq = xcalloc(1, sizeof(*cq));

	assert(threads > 0);
	gpr_set_log_function(on_grpc_log);
	grpc_init();
	cq->loop = loop;
	cq->ended.run = on_ended;
	cq->queue = grpc_completion_queue_create_for_next(NULL);
	cq->threads = xcalloc(threads, sizeof(*cq->threads));
	for (; cq->thread_count < threads; cq->thread_count++) {
		atomic_fetch_add(&cq->running, 1);
		if (pthread_create(&cq->threads[cq->thread_count], NULL,
			    run_completions, cq) != 0)
			fatal("completion thread cannot be started: %m");
	}
	return cq;
}

grpc_completion_queue *rpc_cq_queue(struct rpc_cq *cq)
{
	return cq->queue;
}

struct loop *rpc_cq_loop(struct rpc_cq *cq)
{
	return cq->loop;
}

void rpc_cq_free(struct rpc_cq *cq)
{
	if (!cq)
		return;
	grpc_completion_queue_shutdown(cq->queue);
	/* A completion that the loop has yet to run may be what lets go of a
	 * channel, and the queue ends only when that is gone. */
	while (atomic_load(&cq->running) > 0)
		loop_turn(cq->loop, true);
	for (unsigned i = 0; i < cq->thread_count; i++)
		pthread_join(cq->threads[i], NULL);
	while (atomic_load(&cq->posted) > 0 || cq->ended.queued)
		loop_turn(cq->loop, false);
	grpc_completion_queue_destroy(cq->queue);
	grpc_shutdown_blocking();
	free(cq->threads);
	free(cq);
}
