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
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096
#define MESSAGE_MAX_BYTES (LINE_MAX_BYTES / 2)
#define FORMAT_MAX_BYTES 512

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const int priorities[] = {3, 4, 6, 7}; /* syslog(3)'s, sd-daemon(3) */

static struct {
	const char *name;
	_Atomic int level;
	_Atomic bool json;
	bool journal; /* stderr is the journal's, which keeps the time itself */
} config = {.name = "peerway", .level = LOG_INFO};

/* sd_journal_stream_fd(3)'s counterpart: "device:inode" of what was made for
 * us, which another stderr behind the same environment is not. */
static bool is_journal(int fd)
{
	const char *text = getenv("JOURNAL_STREAM");
	char own[64];
	struct stat st;

	if (!text || fstat(fd, &st) < 0)
		return false;
	snprintf(own, sizeof(own), "%llu:%llu", (unsigned long long)st.st_dev,
		(unsigned long long)st.st_ino);
	return strcmp(text, own) == 0;
}

void log_init(const char *name, enum log_level level, bool json)
{
	config.name = name;
	config.level = level;
	config.json = json;
	config.journal = is_journal(STDERR_FILENO);
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

/* ---- facts as JSON ---- */

/* Whether text begins with " key=". */
static bool is_fact(const char *text, size_t *key_len_out)
{
	*key_len_out =
		strspn(text + 1, "abcdefghijklmnopqrstuvwxyz0123456789_");
	return *text == ' ' && *key_len_out && text[1 + *key_len_out] == '=';
}

/* Where the facts begin that end the format; its end if there are none. */
static const char *find_facts(const char *format)
{
	const char *facts = format + strlen(format);
	size_t len;

	for (const char *at = facts; at > format; at--) {
		if (at[-1] != ' ')
			continue;
		if (!is_fact(at - 1, &len))
			break;
		facts = at - 1;
	}
	return facts;
}

/* Of "%llu " and the like; of "%.63s ", "%016llx " and "%s:%u " not. */
static bool prints_number(const char *value)
{
	size_t len = strspn(value + 1, "lhjzt");

	return *value == '%' && value[1 + len] &&
	       strchr("diu", value[1 + len]) &&
	       (!value[2 + len] || value[2 + len] == ' ');
}

/* How much of the message the first len bytes of the format make. */
static size_t made_by(const char *format, size_t len, va_list ap, size_t max)
{
	char part[FORMAT_MAX_BYTES];
	va_list copy;
	int made;

	memcpy(part, format, len);
	part[len] = '\0';
	va_copy(copy, ap);
	made = vsnprintf(NULL, 0, part, copy);
	va_end(copy);
	return made < 0 || (size_t)made > max ? max : (size_t)made;
}

/*
 * The facts of a line as `"key":"value","other":1`, and how much of the message
 * is before them. Where each begins is asked of the format, so that no value
 * can pass for another fact. 0: they do not fit.
 */
static size_t put_facts(char *out, size_t size, const char *format, va_list ap,
	const char *message)
{
	size_t message_len = strlen(message);
	const char *fact = find_facts(format);
	size_t at, begin, end, key_len, len = 0;

	out[0] = '\0';
	if (strlen(format) >= FORMAT_MAX_BYTES ||
		message_len == MESSAGE_MAX_BYTES - 1) /* it was cut */
		return 0;
	begin = made_by(format, fact - format, ap, message_len);
	for (at = begin; *fact; at = end) {
		const char *next = strchrnul(fact + 1, ' ');
		char value[MESSAGE_MAX_BYTES];
		bool number;

		end = made_by(format, next - format, ap, message_len);
		is_fact(fact, &key_len);
		if (end - at < key_len + 2 ||
			size - len < key_len + 6 * (end - at) + 16)
			return 0;
		snprintf(value, sizeof(value), "%.*s",
			(int)(end - at - key_len - 2),
			message + at + key_len + 2);
		number = prints_number(fact + key_len + 2);
		len += (size_t)snprintf(out + len, size - len, "%s\"%.*s\":%s",
			len ? "," : "", (int)key_len, fact + 1,
			number ? "" : "\"");
		len += escape(out + len, size - len, value, true);
		if (!number)
			out[len++] = '"';
		out[len] = '\0';
		fact = next;
	}
	return begin;
}

/* ---- one line ---- */

static int format_json(char *line, size_t size, const char *head,
	const char *format, va_list ap, char *message)
{
	char text[LINE_MAX_BYTES / 2], fields[LINE_MAX_BYTES / 2];
	size_t begin = put_facts(fields, sizeof(fields), format, ap, message);

	if (begin)
		message[begin] = '\0';
	escape(text, sizeof(text), message, true);
	return snprintf(line, size, "%s,\"message\":\"%s\",\"fields\":{%s}}\n",
		head, text, begin ? fields : "");
}

static void write_line(enum log_level level, const char *format, va_list ap)
{
	char message[MESSAGE_MAX_BYTES], escaped[LINE_MAX_BYTES];
	char line[LINE_MAX_BYTES + 256], head[256], when[40] = "";
	char priority[8] = "";
	bool json = config.json;
	int saved = errno; /* for %m, each time */
	va_list copy;
	int len;

	va_copy(copy, ap);
	vsnprintf(message, sizeof(message), format, copy);
	va_end(copy);
	if (config.journal)
		snprintf(priority, sizeof(priority), "<%d>", priorities[level]);
	if (json || !config.journal)
		timestamp(when, sizeof(when));
	if (json) {
		snprintf(head, sizeof(head),
			"%s{\"time\":\"%s\",\"level\":\"%s\","
			"\"process\":\"%s\",\"pid\":%d",
			priority, when, level_names[level], config.name,
			(int)getpid());
		errno = saved;
		len = format_json(
			line, sizeof(line), head, format, ap, message);
	} else {
		escape(escaped, sizeof(escaped), message, false);
		len = snprintf(line, sizeof(line), "%s%s%s%s %s[%d]: %s\n",
			priority, when, *when ? " " : "", level_names[level],
			config.name, (int)getpid(), escaped);
	}
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

/* Says what was left out in times that are over, or in all; the lock is held.
 */
static void settle(int64_t now, bool all)
{
	struct log_limit **at = &limits.silent;

	while (*at) {
		struct log_limit *limit = *at;

		if (!all && !is_over(limit, now)) {
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
	settle(now_ms(), false);
	pthread_mutex_unlock(&limits.lock);
}

void log_end(void)
{
	pthread_mutex_lock(&limits.lock);
	settle(now_ms(), true);
	pthread_mutex_unlock(&limits.lock);
}

/* Whether it may be written, with all limits up to date. */
static bool pass(struct log_limit *limit)
{
	int64_t now = now_ms();
	bool first, may;

	pthread_mutex_lock(&limits.lock);
	settle(now, false);
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
