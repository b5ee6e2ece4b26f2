/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines, put together in one buffer and written with one write(2), so that
 * lines of several processes on one stderr do not mix. The level, format, name
 * and limits are the only mutable globals of the program besides the signal
 * flags.
 */
#include "shared/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static struct {
	const char *name;
	_Atomic int level;
	_Atomic bool json;
} config = {.name = "peerway", .level = LOG_INFO};

void log_init(const char *name, enum log_level level, bool json)
{
	config.name = name;
	config.level = level;
	config.json = json;
}

void log_set_level(enum log_level level)
{
	config.level = level;
}

void log_set_json(bool json)
{
	config.json = json;
}

bool log_enabled(enum log_level level)
{
	return (int)level <= config.level;
}

int log_level_parse(const char *text, enum log_level *level_out)
{
	for (size_t i = 0; i < sizeof(level_names) / sizeof(*level_names);
		i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*level_out = i;
			return 0;
		}
	}
	return -EINVAL;
}

/* Copies text with control bytes, non-ASCII and, in JSON, quotes escaped. */
static size_t escape(char *out, size_t size, const char *text, bool json)
{
	size_t len = 0;

	for (; *text && len + 7 < size; text++) {
		unsigned char c = *text;

		if (c < 0x20 || c >= 0x7f)
			len += snprintf(out + len, size - len,
				json ? "\\u%04x" : "\\x%02x", c);
		else if (json && (c == '"' || c == '\\'))
			len += snprintf(out + len, size - len, "\\%c", c);
		else
			out[len++] = c;
	}
	out[len] = 0;
	return len;
}

static void timestamp(char *out, size_t size)
{
	struct timespec now;
	struct tm tm;
	size_t len;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	len = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + len, size - len, ".%03ldZ", now.tv_nsec / 1000000);
}

static void write_line(enum log_level level, const char *format, va_list ap)
{
	char message[LINE_MAX_BYTES / 2], escaped[LINE_MAX_BYTES];
	char line[LINE_MAX_BYTES + 256], when[40];
	int len;

	vsnprintf(message, sizeof(message), format, ap);
	timestamp(when, sizeof(when));
	escape(escaped, sizeof(escaped), message, config.json);
	len = snprintf(line, sizeof(line),
		config.json ? "{\"time\":\"%s\",\"level\":\"%s\","
			      "\"process\":\"%s\",\"pid\":%d,"
			      "\"message\":\"%s\"}\n"
			    : "%s %s %s[%d]: %s\n",
		when, level_names[level], config.name, (int)getpid(), escaped);
	/* Nobody is left to tell when stderr itself is gone. */
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}

/* ---- limits ---- */

static struct {
	pthread_mutex_t lock;
	struct log_limit *silent; /* those that have left something out */
	_Atomic bool any;	  /* there is one */
} limits = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static bool is_over(const struct log_limit *limit, int64_t now)
{
	return limit->written == 0 || now - limit->began >= LOG_LIMIT_MS;
}

bool log_limit_take(struct log_limit *limit, int64_t now)
{
	if (is_over(limit, now)) {
		limit->began = now;
		limit->written = 0;
	}
	if (limit->written == LOG_LIMIT_LINES) {
		limit->left_out++;
		return false;
	}
	limit->written++;
	return true;
}

static void say_left_out(const struct log_limit *limit, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	write_line(limit->level, format, ap);
	va_end(ap);
}

/* Says what was left out in times that are over; the lock is held. */
static void settle(int64_t now)
{
	struct log_limit **at = &limits.silent;

	while (*at) {
		struct log_limit *limit = *at;

		if (!is_over(limit, now)) {
			at = &limit->next;
			continue;
		}
		say_left_out(limit,
			"lines left out: %u more like those before in %lld s "
			"place=%s",
			limit->left_out,
			(long long)(now - limit->began + 999) / 1000,
			limit->where);
		limit->left_out = 0;
		limit->written = 0;
		*at = limit->next;
	}
	limits.any = limits.silent != NULL;
}

static void settle_all(void)
{
	if (!limits.any) /* as good as always; seen late does no harm */
		return;
	pthread_mutex_lock(&limits.lock);
	settle(now_ms());
	pthread_mutex_unlock(&limits.lock);
}

/* Whether it may be written, with all limits up to date. */
static bool pass(struct log_limit *limit)
{
	int64_t now = now_ms();
	bool first, may;

	pthread_mutex_lock(&limits.lock);
	settle(now);
	may = log_limit_take(limit, now);
	first = limit->left_out == 1 && !may;
	if (first) {
		limit->next = limits.silent;
		limits.silent = limit;
		limits.any = true;
	}
	pthread_mutex_unlock(&limits.lock);
	return may;
}

void log_limited_at(struct log_limit *limit, const char *format, ...)
{
	int saved = errno;
	va_list ap;

	if (!log_enabled(limit->level) || !pass(limit))
		return;
	errno = saved; /* for %m */
	va_start(ap, format);
	write_line(limit->level, format, ap);
	va_end(ap);
	errno = saved;
}

/* ---- lines ---- */

void log_at(enum log_level level, const char *format, ...)
{
	int saved = errno;
	va_list ap;

	if (!log_enabled(level))
		return;
	settle_all();
	errno = saved; /* for %m */
	va_start(ap, format);
	write_line(level, format, ap);
	va_end(ap);
	errno = saved;
}

void fatal(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	write_line(LOG_ERROR, format, ap);
	va_end(ap);
	abort();
}

void die(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	write_line(LOG_ERROR, format, ap);
	va_end(ap);
	exit(1);
}
