/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines, put together in one buffer and written with one write(2), so that
 * lines of several processes on one stderr do not mix. The level, format and
 * name are the only mutable globals of the program besides the signal flags.
 */
#include "shared/log.h"

#include <errno.h>
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
	bool json;
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

void log_at(enum log_level level, const char *format, ...)
{
	int saved = errno;
	va_list ap;

	if (!log_enabled(level))
		return;
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
