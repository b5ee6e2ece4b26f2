/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Log lines to stderr, one write(2) each, text or JSON:
 *
 *   2026-01-02T03:04:05.678Z info peerd[2]: what happened: why key=value
 *   {"time":"2026-…","level":"info","process":"peerd","pid":2,
 *    "message":"what happened: why","fields":{"key":"value"}}
 *
 * In JSON the facts that end the format, " key=…" each, are fields, numbers
 * where it prints a number; no value can pass for another fact. Facts that do
 * not fit stay in the message.
 *
 * Lower case, `what failed: why`, facts as key=value. What a peer said is
 * escaped here (control characters and non-ASCII become \xNN); secrets and
 * payload never come near. `%m` prints errno. Functions in shared/ log nothing
 * above debug: they return errors and the daemon, which knows the context,
 * logs once.
 *
 *   error  someone should act          warn   unusual, but handled
 *   info   start, stop, one line per closed connection       debug  the rest
 */

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Borrows name for the life of the process ("proxy", "proxy/0"). When stderr is
 * the journal's (systemd.exec(5), $JOURNAL_STREAM), lines begin with
 * <priority>, as sd-daemon(3) says, and those in text have no time. */
void log_init(const char *name, enum log_level level, bool json);
void log_set_level(enum log_level level);
void log_set_json(bool json);
bool log_enabled(enum log_level level);
/* "error", "warn", "info", "debug"; 0 or -EINVAL. */
int log_level_parse(const char *text, enum log_level *level_out);

void log_at(enum log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                                  \
	do {                                            \
		if (log_enabled(LOG_DEBUG))             \
			log_at(LOG_DEBUG, __VA_ARGS__); \
	} while (0)

/*
 * Lines that others can cause as often as they like: of one place in the code
 * LOG_LIMIT_LINES in LOG_LIMIT_MS are written. How many were left out is said
 * when that time is over, with the next line that anything writes, or at
 * log_end().
 */
#define LOG_LIMIT_LINES 10
#define LOG_LIMIT_MS 10000

struct log_limit {
	int64_t began; /* ms */
	unsigned written;
	unsigned left_out;
	enum log_level level;
	const char *where;
	struct log_limit *next; /* of those that have left something out */
};

/* Whether a line may be written now; counts it either way. Pure but for limit.
 */
bool log_limit_take(struct log_limit *limit, int64_t now_ms);
void log_limited_at(struct log_limit *limit, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Says what limits have left out so far, for the end of the process. */
void log_end(void);

/* For each place of its own. */
#define log_limited(log_level, ...)                               \
	do {                                                      \
		static struct log_limit limit_ = {                \
			.level = (log_level), .where = __func__}; \
		log_limited_at(&limit_, __VA_ARGS__);             \
	} while (0)

/* Our own bug or a start that cannot go on: one line, then abort or exit 1. */
void fatal(const char *format, ...)
	__attribute__((format(printf, 1, 2), noreturn));
void die(const char *format, ...)
	__attribute__((format(printf, 1, 2), noreturn));
