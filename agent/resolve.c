/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Name lookups in short-lived threads.
 *
 * A job is one getaddrinfo() and the lookups that wait for it. Its thread owns
 * the result until it posts the job to the loop; afterwards all of it belongs
 * to the loop's thread.
 *
 * What one gets wrong: the resolver may go while a thread still runs. What both
 * need (the loop to post to) is in `home`, which whoever is last frees.
 */
#include "agent/resolve.h"

#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/alloc.h"

/* getaddrinfo() keeps its answers on the stack, 64 KiB and more. */
#define STACK_SIZE (256 * 1024)

struct home {
	pthread_mutex_t lock;
	struct loop *loop; /* NULL: the resolver has gone */
	unsigned refs;
};

struct job {
	struct loop_task done;
	TAILQ_ENTRY(job) entry;
	struct home *home;
	struct resolver *resolver; /* NULL: it has gone */
	TAILQ_HEAD(, lookup) lookups;
	char host[256];
	bool old; /* nobody joins it any more */
	struct addrinfo *found;
	int error;
};

struct lookup {
	TAILQ_ENTRY(lookup) entry;
	struct job *job; /* NULL: no thread, error is static */
	const char *error;
	struct loop_task refuse;
	struct loop *loop;
	uint16_t port;
	lookup_fn *fn;
	void *arg;
};

struct resolver {
	struct loop *loop;
	struct home *home;
	TAILQ_HEAD(, job) jobs;
	unsigned job_count;
};

struct resolver *resolver_new(struct loop *loop)
{
	struct resolver *resolver = xcalloc(1, sizeof(*resolver));

	resolver->loop = loop;
	resolver->home = xcalloc(1, sizeof(*resolver->home));
	resolver->home->loop = loop;
	resolver->home->refs = 1;
	pthread_mutex_init(&resolver->home->lock, NULL);
	TAILQ_INIT(&resolver->jobs);
	return resolver;
}

/* Takes the lock, which the caller holds. */
static void home_unref(struct home *home)
{
	bool last = --home->refs == 0;

	pthread_mutex_unlock(&home->lock);
	if (last) {
		pthread_mutex_destroy(&home->lock);
		free(home);
	}
}

static void job_free(struct job *job)
{
	if (job->found)
		freeaddrinfo(job->found);
	free(job);
}

void resolver_free(struct resolver *resolver)
{
	struct job *job;
	struct lookup *lookup;

	if (!resolver)
		return;
	pthread_mutex_lock(&resolver->home->lock);
	resolver->home->loop = NULL;
	TAILQ_FOREACH (job, &resolver->jobs, entry) {
		job->resolver = NULL;
		while ((lookup = TAILQ_FIRST(&job->lookups))) {
			TAILQ_REMOVE(&job->lookups, lookup, entry);
			free(lookup);
		}
	}
	home_unref(resolver->home);
	free(resolver);
}

static void *run_job(void *arg)
{
	struct job *job = arg;
	struct home *home = job->home;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
		.ai_family = AF_UNSPEC,
		.ai_flags = AI_ADDRCONFIG};

	job->error = getaddrinfo(job->host, NULL, &hints, &job->found);
	if (job->error)
		job->found = NULL;
	pthread_mutex_lock(&home->lock);
	if (home->loop)
		loop_post(home->loop, &job->done);
	else
		job_free(job);
	home_unref(home);
	return NULL;
}

static size_t copy_addrs(
	const struct addrinfo *found, uint16_t port, struct sock_addr *out)
{
	size_t count = 0;

	for (; found && count < RESOLVE_ADDRS_MAX; found = found->ai_next) {
		struct sock_addr *addr = &out[count];

		if (found->ai_addrlen > sizeof(addr->ss))
			continue;
		memset(addr, 0, sizeof(*addr));
		memcpy(&addr->ss, found->ai_addr, found->ai_addrlen);
		addr->len = found->ai_addrlen;
		if (found->ai_family == AF_INET)
			((struct sockaddr_in *)&addr->ss)->sin_port =
				htons(port);
		else if (found->ai_family == AF_INET6)
			((struct sockaddr_in6 *)&addr->ss)->sin6_port =
				htons(port);
		else
			continue;
		count++;
	}
	return count;
}

static void on_job_done(struct loop_task *task)
{
	struct job *job = (struct job *)task;
	struct resolver *resolver = job->resolver;
	struct sock_addr addrs[RESOLVE_ADDRS_MAX];
	struct lookup *lookup;
	size_t count;

	if (resolver) {
		TAILQ_REMOVE(&resolver->jobs, job, entry);
		resolver->job_count--;
	}
	/* A callback may cancel any other lookup, of this job too. */
	while ((lookup = TAILQ_FIRST(&job->lookups))) {
		TAILQ_REMOVE(&job->lookups, lookup, entry);
		count = copy_addrs(job->found, lookup->port, addrs);
		lookup->fn(lookup->arg, addrs, count,
			job->error ? gai_strerror(job->error)
				   : "no usable address");
		free(lookup);
	}
	job_free(job);
}

/* Starts the thread; -1 when there is none to be had. */
static int start_thread(struct job *job)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, old;
	int ret;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	/* Signals are the loop's. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	ret = pthread_create(&thread, &attr, run_job, job);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return ret ? -1 : 0;
}

static struct job *job_start(struct resolver *resolver, const char *host)
{
	struct job *job = xcalloc(1, sizeof(*job));

	job->done.run = on_job_done;
	job->resolver = resolver;
	job->home = resolver->home;
	TAILQ_INIT(&job->lookups);
	snprintf(job->host, sizeof(job->host), "%s", host);
	pthread_mutex_lock(&job->home->lock);
	job->home->refs++;
	pthread_mutex_unlock(&job->home->lock);
	if (start_thread(job) < 0) {
		pthread_mutex_lock(&job->home->lock);
		home_unref(job->home);
		free(job);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&resolver->jobs, job, entry);
	resolver->job_count++;
	return job;
}

static struct job *find_job(struct resolver *resolver, const char *host)
{
	struct job *job;

	TAILQ_FOREACH (job, &resolver->jobs, entry)
		if (!job->old && strcmp(job->host, host) == 0)
			return job;
	return NULL;
}

void resolver_forget(struct resolver *resolver)
{
	struct job *job;

	TAILQ_FOREACH (job, &resolver->jobs, entry)
		job->old = true;
}

static void on_refused(struct loop_task *task)
{
	struct lookup *lookup =
		(struct lookup *)((char *)task -
				  offsetof(struct lookup, refuse));

	lookup->fn(lookup->arg, NULL, 0, lookup->error);
	free(lookup);
}

struct lookup *lookup_start(struct resolver *resolver, const char *host,
	uint16_t port, lookup_fn *fn, void *arg)
{
	struct lookup *lookup = xcalloc(1, sizeof(*lookup));
	struct job *job = find_job(resolver, host);

	lookup->loop = resolver->loop;
	lookup->port = port;
	lookup->fn = fn;
	lookup->arg = arg;
	lookup->refuse.run = on_refused;
	if (!job && strlen(host) >= sizeof(job->host))
		lookup->error = "the name is too long";
	else if (!job && resolver->job_count >= RESOLVE_THREADS_MAX)
		lookup->error = "too many name lookups hang";
	else if (!job && !(job = job_start(resolver, host)))
		lookup->error = "no thread to look it up in";
	lookup->job = job;
	if (job)
		TAILQ_INSERT_TAIL(&job->lookups, lookup, entry);
	else
		loop_defer(lookup->loop, &lookup->refuse);
	return lookup;
}

void lookup_cancel(struct lookup *lookup)
{
	if (!lookup)
		return;
	if (lookup->job)
		TAILQ_REMOVE(&lookup->job->lookups, lookup, entry);
	else
		loop_cancel(lookup->loop, &lookup->refuse);
	free(lookup);
}
