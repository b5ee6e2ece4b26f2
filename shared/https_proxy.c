/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTPS_PROXY and NO_PROXY.
 *
 * What one gets wrong: the URL is a secret as soon as it has a password, also
 * in a message about its own mistakes.
 */
#include "shared/https_proxy.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "shared/alloc.h"
#include "shared/cidr.h"
#include "shared/sock.h"

#define LOGIN_MAX 512

struct https_proxy {
	char addr[SOCK_ADDR_MAX];
	char *authorization; /* "Basic ..."; NULL: none */
	char *no_proxy;
};

/* What a URL consists of; points into it. */
struct parts {
	const char *login; /* NULL: none */
	size_t login_len;
	const char *addr;
	size_t addr_len;
};

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef";
	const char *found = c ? strchr(digits, c | 0x20) : NULL;

	return found ? found - digits : -1;
}

/* Undoes %XX; gives the length, or -1. out holds len bytes. */
static int decode(const char *text, size_t len, char *out)
{
	size_t used = 0;

	for (size_t i = 0; i < len; i++, used++) {
		out[used] = text[i];
		if (text[i] != '%')
			continue;
		if (len - i < 3 || hex_digit(text[i + 1]) < 0 ||
			hex_digit(text[i + 2]) < 0)
			return -1;
		out[used] =
			hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]);
		i += 2;
	}
	return used;
}

/* host:port of the URL, as it is dialed. */
static bool is_host_and_port(const char *addr, size_t len)
{
	char text[SOCK_ADDR_MAX], host[256];
	uint16_t port;

	if (len >= sizeof(text))
		return false;
	memcpy(text, addr, len);
	text[len] = '\0';
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return false;
	return sock_split(text, 0, host, sizeof(host), &port) == 0 && *host &&
	       port;
}

/* NULL, or what is wrong. */
static const char *split(const char *url, struct parts *out)
{
	static const char scheme[] = "http://";
	char login[LOGIN_MAX];
	const char *at = NULL;
	size_t len;

	if (strncasecmp(url, scheme, strlen(scheme)) != 0)
		return "must begin with http://, as "
		       "http://proxy.example.com:3128";
	url += strlen(scheme);
	len = strcspn(url, "/?#");
	if (url[len] && strcmp(url + len, "/") != 0)
		return "must end with the port";
	for (size_t i = 0; i < len; i++)
		if (url[i] == '@')
			at = url + i;
	*out = (struct parts){.addr = at ? at + 1 : url};
	out->addr_len = url + len - out->addr;
	if (!is_host_and_port(out->addr, out->addr_len))
		return "must have host and port, as "
		       "http://proxy.example.com:3128";
	if (!at)
		return NULL;
	out->login = url;
	out->login_len = at - url;
	if (out->login_len > LOGIN_MAX ||
		decode(out->login, out->login_len, login) < 0)
		return "user and password must be at most 512 bytes, with "
		       "%XX for special ones";
	wipe(login, sizeof(login));
	return NULL;
}

const char *https_proxy_check(const char *url)
{
	struct parts parts;

	return split(url, &parts);
}

static char *basic(const char *login, size_t login_len)
{
	char plain[LOGIN_MAX], *text;
	unsigned char encoded[4 * ((LOGIN_MAX + 2) / 3) + 1];
	int len = decode(login, login_len, plain);

	/* "user" alone has an empty password */
	if (len < LOGIN_MAX && !memchr(login, ':', login_len))
		plain[len++] = ':';
	EVP_EncodeBlock(encoded, (unsigned char *)plain, len);
	text = xasprintf("Basic %s", (char *)encoded);
	wipe(plain, sizeof(plain));
	wipe(encoded, sizeof(encoded));
	return text;
}

struct https_proxy *https_proxy_new(const char *url, const char *no_proxy)
{
	struct https_proxy *proxy = xcalloc(1, sizeof(*proxy));
	struct parts parts;

	if (split(url, &parts))
		abort(); /* unchecked */
	snprintf(proxy->addr, sizeof(proxy->addr), "%.*s", (int)parts.addr_len,
		parts.addr);
	if (parts.login)
		proxy->authorization = basic(parts.login, parts.login_len);
	proxy->no_proxy = xstrdup(no_proxy ? no_proxy : "");
	return proxy;
}

void https_proxy_free(struct https_proxy *proxy)
{
	if (!proxy)
		return;
	if (proxy->authorization)
		wipe(proxy->authorization, strlen(proxy->authorization));
	free(proxy->authorization);
	free(proxy->no_proxy);
	free(proxy);
}

const char *https_proxy_addr(const struct https_proxy *proxy)
{
	return proxy->addr;
}

/* "example.com", ".example.com" and "*.example.com" mean the name itself and
 * all below it. */
static bool name_matches(const char *pattern, const char *host)
{
	size_t len, host_len = strlen(host);

	pattern += strspn(pattern, "*.");
	len = strlen(pattern);
	if (host_len && host[host_len - 1] == '.')
		host_len--; /* the root's */
	if (!len || host_len < len ||
		strncasecmp(host + host_len - len, pattern, len) != 0)
		return false;
	return host_len == len || host[host_len - len - 1] == '.';
}

struct target {
	char host[256];
	uint16_t port;
	bool is_numeric;
	struct sock_addr addr;
};

static bool item_matches(const char *item, const struct target *target)
{
	struct cidr range;
	char host[256];
	uint16_t port;

	if (strcmp(item, "*") == 0)
		return true;
	if (cidr_parse(item, &range) == 0)
		return target->is_numeric &&
		       cidr_contains(&range, &target->addr);
	/* 1: no port was written, for nobody listens there */
	if (sock_split(item, 1, host, sizeof(host), &port) < 0 ||
		(port != 1 && port != target->port))
		return false;
	if (cidr_parse(host, &range) == 0)
		return target->is_numeric &&
		       cidr_contains(&range, &target->addr);
	return !target->is_numeric && name_matches(host, target->host);
}

bool https_proxy_applies(const struct https_proxy *proxy, const char *addr,
	uint16_t default_port)
{
	char *list = xstrdup(proxy->no_proxy), *rest = list, *item;
	struct target target;
	bool applies = true;

	if (sock_split(addr, default_port, target.host, sizeof(target.host),
		    &target.port) < 0)
		applies = false; /* whoever dials it says so */
	target.is_numeric = sock_parse(addr, default_port, &target.addr) == 0;
	while (applies && (item = strsep(&rest, ", \t")))
		if (*item && item_matches(item, &target))
			applies = false;
	free(list);
	return applies;
}

char *https_proxy_request(const struct https_proxy *proxy, const char *target)
{
	return xasprintf("CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s%s%s\r\n",
		target, target,
		proxy->authorization ? "Proxy-Authorization: " : "",
		proxy->authorization ? proxy->authorization : "",
		proxy->authorization ? "\r\n" : "");
}
