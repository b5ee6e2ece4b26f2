/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See scrub.h. What a newcomer gets wrong: a password can stand in a URL in
 * ways that no pattern knows (escaped, percent-encoded, with a second @). So
 * https_proxy's value is not searched but left out by its key, and its parts
 * are looked for elsewhere as they are.
 */
#include "peerctl/scrub.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peerctl/file.h"
#include "shared/alloc.h"
#include "shared/conf_tree.h"

#define REMOVED "[removed]"
#define SECRET_MIN 6

struct scrub {
	char **secrets;
	size_t count;
};

/* ---- text that grows ---- */

struct text {
	char *bytes;
	size_t len;
	size_t room;
};

static void append(struct text *text, const char *bytes, size_t len)
{
	if (text->len + len + 1 > text->room) {
		text->room = (text->len + len + 1) * 2;
		text->bytes = xrealloc(text->bytes, text->room);
	}
	memcpy(text->bytes + text->len, bytes, len);
	text->len += len;
	text->bytes[text->len] = '\0';
}

static void append_text(struct text *text, const char *more)
{
	append(text, more, strlen(more));
}

/* ---- secrets that are known ---- */

void scrub_add(struct scrub *scrub, const char *secret)
{
	if (strlen(secret) < SECRET_MIN)
		return;
	scrub->secrets = xrealloc(
		scrub->secrets, (scrub->count + 1) * sizeof(*scrub->secrets));
	scrub->secrets[scrub->count++] = xstrdup(secret);
}

/* Each line of it: a token, a password, the lines of a key. */
static void add_file(struct scrub *scrub, const char *path)
{
	char *text = *path ? file_read(path) : NULL;
	char *rest = NULL;

	for (char *line = text ? strtok_r(text, "\r\n", &rest) : NULL; line;
		line = strtok_r(NULL, "\r\n", &rest))
		if (strncmp(line, "-----", 5))
			scrub_add(scrub, line);
	if (text)
		wipe(text, strlen(text));
	free(text);
}

/* "user:password@host", of a URL: all of user info, and the password alone. */
static void add_url(struct scrub *scrub, const char *url)
{
	const char *begin = strstr(url, "://");
	const char *end = strrchr(url, '@');
	char *info;
	char *colon;

	begin = begin ? begin + strlen("://") : url;
	if (!end || end < begin)
		return;
	scrub_add(scrub, url);
	info = xstrndup(begin, (size_t)(end - begin));
	colon = strchr(info, ':');
	scrub_add(scrub, info);
	if (colon)
		scrub_add(scrub, colon + 1);
	free(info);
}

struct scrub *scrub_new(const struct conf *conf)
{
	struct scrub *scrub = xcalloc(1, sizeof(*scrub));
	char *host = xasprintf("%s/identity/current/key.pem", conf->data_dir);
	char *agent = xasprintf("%s/agent/key.pem", conf->data_dir);
	char *joining = xasprintf("%s/joining.key", conf->data_dir);

	add_file(scrub, conf->join.token_file);
	add_file(scrub, conf->identity.key);
	add_file(scrub, conf->auth.ca_key_file);
	add_file(scrub, conf->auth.storage.tls.key);
	add_file(scrub, conf->auth.storage.user.password_file);
	add_file(scrub, host);
	add_file(scrub, agent);
	add_file(scrub, joining);
	add_url(scrub, conf->agent.https_proxy);
	free(host);
	free(agent);
	free(joining);
	return scrub;
}

void scrub_free(struct scrub *scrub)
{
	if (!scrub)
		return;
	for (size_t i = 0; i < scrub->count; i++) {
		wipe(scrub->secrets[i], strlen(scrub->secrets[i]));
		free(scrub->secrets[i]);
	}
	free(scrub->secrets);
	free(scrub);
}

/* How long the secret is that begins here; 0: none does. The longest, so that
 * nothing of it is left. */
static size_t known_at(const struct scrub *scrub, const char *at)
{
	size_t longest = 0;

	for (size_t i = 0; i < scrub->count; i++) {
		size_t len = strlen(scrub->secrets[i]);

		if (len > longest && !strncmp(at, scrub->secrets[i], len))
			longest = len;
	}
	return longest;
}

/* ---- what looks like one ---- */

/* Behind "://": how long the user info is, with its @; 0: there is none. */
static size_t user_info_at(const char *at)
{
	size_t end = 0;

	for (size_t i = 0; at[i] && !isspace((unsigned char)at[i]) &&
			   !strchr("\"'<>{}", at[i]);
		i++)
		if (at[i] == '@')
			end = i + 1;
	return end;
}

static size_t private_key_at(const char *at)
{
	static const char begin[] = "-----BEGIN ";
	static const char what[] = "PRIVATE KEY-----";
	const char *line;
	const char *end;

	if (strncmp(at, begin, strlen(begin)))
		return 0;
	line = strstr(at, what);
	if (!line || line - at > 64)
		return 0;
	end = strstr(line + strlen(what), what);
	return end ? (size_t)(end - at) + strlen(what) : strlen(at);
}

char *scrub_text(const struct scrub *scrub, const char *text)
{
	struct text out = {0};

	append(&out, "", 0);
	while (*text) {
		size_t len = known_at(scrub, text);

		if (!len)
			len = private_key_at(text);
		if (!len && !strncmp(text, "://", 3)) {
			append(&out, "://", 3);
			text += 3;
			len = user_info_at(text);
			if (len)
				append_text(&out, REMOVED "@");
			text += len;
			continue;
		}
		if (len)
			append_text(&out, REMOVED);
		else
			append(&out, text, 1);
		text += len ? len : 1;
	}
	return out.bytes;
}

/* ---- the configuration ---- */

static void print_scalar(struct text *out, const char *value)
{
	append_text(out, "\"");
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			append_text(out, "\\");
		append(out, value, 1);
	}
	append_text(out, "\"");
}

static bool is_secret(const struct conf_node *node)
{
	return node->key && !strcmp(node->key, "https_proxy") &&
	       strchr(node->text, '@');
}

static void print_node(
	struct text *out, const struct conf_node *node, unsigned depth)
{
	const struct conf_node *child;

	TAILQ_FOREACH (child, &node->children, entry) {
		for (unsigned i = 0; i < depth; i++)
			append_text(out, "  ");
		append_text(out, child->key ? child->key : "-");
		if (child->key)
			append_text(out, ":");
		append_text(out, " ");
		if (child->kind != CONF_SCALAR) {
			append_text(out, child->count ? "\n"
					 : child->kind == CONF_MAPPING
						 ? "{}\n"
						 : "[]\n");
			print_node(out, child, depth + 1);
			continue;
		}
		if (is_secret(child))
			append_text(out, "\"" REMOVED "\"");
		else if (child->plain)
			append_text(out, child->text);
		else
			print_scalar(out, child->text);
		append_text(out, "\n");
	}
}

char *scrub_conf(const struct scrub *scrub, const char *path, const char *text,
	char **error_out)
{
	struct conf_error error = {.file = path};
	struct conf_node *root =
		conf_tree_parse((const uint8_t *)text, strlen(text), &error);
	struct text out = {0};
	char *clean;

	if (!root) {
		*error_out = error.text;
		return NULL;
	}
	append(&out, "", 0);
	print_node(&out, root, 0);
	conf_tree_free(root);
	clean = scrub_text(scrub, out.bytes);
	free(out.bytes);
	return clean;
}
