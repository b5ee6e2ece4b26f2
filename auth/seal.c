/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See seal.h. A sealed text is "sealed-1:" and base64 of nonce, ciphertext and
 * tag. What a newcomer gets wrong: with a key, a text that is not sealed is
 * refused too; else whoever may write to the store could put a CA of his own
 * there.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "auth/seal.h"
#include "shared/alloc.h"
#include "shared/file.h"

#define MARK "sealed-1:"
#define KEY_SIZE 32
#define NONCE_SIZE 12
#define TAG_SIZE 16
#define SECRET_MAX 65536

struct seal {
	char *path; /* empty: none is needed */
	bool has_key;
	uint8_t key[KEY_SIZE];
};

/* 64 digits, a line end perhaps. */
static bool read_key(struct seal *seal, const char *text)
{
	size_t len = strcspn(text, "\r\n");
	char digits[2 * KEY_SIZE + 1];
	uint8_t *key;
	long key_len = 0;

	if (len != 2 * KEY_SIZE || text[len + strspn(text + len, "\r\n")])
		return false;
	memcpy(digits, text, len);
	digits[len] = '\0';
	key = strspn(digits, "0123456789abcdefABCDEF") == len
		      ? OPENSSL_hexstr2buf(digits, &key_len)
		      : NULL;
	wipe(digits, sizeof(digits));
	if (!key || key_len != KEY_SIZE)
		return false;
	memcpy(seal->key, key, KEY_SIZE);
	OPENSSL_clear_free(key, KEY_SIZE);
	seal->has_key = true;
	return true;
}

struct seal *seal_new(const char *path, char **error_out)
{
	struct seal *seal = xcalloc(1, sizeof(*seal));
	char *text;

	seal->path = xstrdup(path);
	if (!*path || (access(path, F_OK) < 0 && errno == ENOENT))
		return seal;
	text = file_text(path, error_out);
	if (text && !read_key(seal, text))
		*error_out = xasprintf("%s: not a key: must be 64 hexadecimal "
				       "digits",
			path);
	if (text)
		wipe(text, strlen(text));
	free(text);
	if (seal->has_key)
		return seal;
	seal_free(seal);
	return NULL;
}

void seal_free(struct seal *seal)
{
	if (!seal)
		return;
	free(seal->path);
	wipe(seal, sizeof(*seal));
	free(seal);
}

bool seal_is_ready(const struct seal *seal)
{
	return seal->has_key || !*seal->path;
}

const char *seal_path(const struct seal *seal)
{
	return seal->path;
}

int seal_make(struct seal *seal, char **error_out)
{
	char text[2 * KEY_SIZE + 2];
	int fd = -1;
	int ret = 0;

	if (RAND_priv_bytes(seal->key, KEY_SIZE) != 1)
		ret = -EIO;
	for (size_t i = 0; i < KEY_SIZE; i++) {
		text[2 * i] = "0123456789abcdef"[seal->key[i] >> 4];
		text[2 * i + 1] = "0123456789abcdef"[seal->key[i] & 15];
	}
	text[2 * KEY_SIZE] = '\n';
	if (ret == 0)
		fd = open(seal->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
			0600);
	if (ret == 0 &&
		(fd < 0 ||
			write(fd, text, 2 * KEY_SIZE + 1) != 2 * KEY_SIZE + 1 ||
			fsync(fd) < 0))
		ret = -errno;
	wipe(text, sizeof(text));
	if (fd >= 0)
		close(fd);
	seal->has_key = ret == 0;
	if (ret < 0)
		*error_out = xasprintf("%s: %s", seal->path, strerror(-ret));
	return ret;
}

/* ---- sealing ---- */

static bool encrypt(const struct seal *seal, const char *name,
	const char *secret, size_t len, uint8_t *out)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t *text = out + NONCE_SIZE;
	int n;
	bool ok = ctx && RAND_bytes(out, NONCE_SIZE) == 1 &&
		  EVP_EncryptInit_ex(
			  ctx, EVP_aes_256_gcm(), NULL, seal->key, out) == 1 &&
		  EVP_EncryptUpdate(ctx, NULL, &n, (const uint8_t *)name,
			  (int)strlen(name)) == 1 &&
		  EVP_EncryptUpdate(ctx, text, &n, (const uint8_t *)secret,
			  (int)len) == 1 &&
		  EVP_EncryptFinal_ex(ctx, text + len, &n) == 1 &&
		  EVP_CIPHER_CTX_ctrl(
			  ctx, EVP_CTRL_GCM_GET_TAG, TAG_SIZE, text + len) == 1;

	EVP_CIPHER_CTX_free(ctx);
	return ok;
}

char *seal_close(const struct seal *seal, const char *name, const char *secret)
{
	size_t len = strlen(secret);
	size_t size = NONCE_SIZE + len + TAG_SIZE;
	uint8_t *bytes;
	char *text;

	if (!*seal->path)
		return xstrdup(secret);
	bytes = xcalloc(1, size);
	text = xcalloc(1, strlen(MARK) + 4 * (size / 3 + 1) + 1);
	strcpy(text, MARK);
	if (!seal->has_key || !encrypt(seal, name, secret, len, bytes))
		abort(); /* out of memory or of randomness */
	EVP_EncodeBlock((uint8_t *)text + strlen(MARK), bytes, (int)size);
	free(bytes);
	return text;
}

/* ---- opening ---- */

static bool decrypt(const struct seal *seal, const char *name, uint8_t *bytes,
	size_t len, char *out)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n;
	bool ok = ctx &&
		  EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, seal->key,
			  bytes) == 1 &&
		  EVP_DecryptUpdate(ctx, NULL, &n, (const uint8_t *)name,
			  (int)strlen(name)) == 1 &&
		  EVP_DecryptUpdate(ctx, (uint8_t *)out, &n, bytes + NONCE_SIZE,
			  (int)len) == 1 &&
		  EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_SIZE,
			  bytes + NONCE_SIZE + len) == 1 &&
		  EVP_DecryptFinal_ex(ctx, (uint8_t *)out + len, &n) == 1;

	EVP_CIPHER_CTX_free(ctx);
	return ok;
}

/* Of base64 text; gives, or NULL. */
static uint8_t *decode(const char *text, size_t *len_out)
{
	size_t len = strlen(text);
	uint8_t *bytes;
	int n;

	if (len == 0 || len % 4)
		return NULL;
	bytes = xcalloc(1, len / 4 * 3 + 1);
	n = EVP_DecodeBlock(bytes, (const uint8_t *)text, (int)len);
	for (size_t end = len; n > 0 && text[end - 1] == '='; end--)
		n--;
	if (n < NONCE_SIZE + TAG_SIZE) {
		free(bytes);
		return NULL;
	}
	*len_out = (size_t)n;
	return bytes;
}

static char *open_sealed(const struct seal *seal, const char *name,
	const char *text, const char **reason_out)
{
	size_t len;
	uint8_t *bytes = decode(text, &len);
	char *secret;

	*reason_out = "it is sealed with another key, or was meddled with";
	if (!bytes)
		return NULL;
	len -= NONCE_SIZE + TAG_SIZE;
	secret = xcalloc(1, len + 1);
	if (!decrypt(seal, name, bytes, len, secret)) {
		wipe(secret, len);
		free(secret);
		secret = NULL;
	}
	free(bytes);
	return secret;
}

char *seal_open(const struct seal *seal, const char *name, const void *text,
	size_t len, const char **reason_out)
{
	char *copy = xstrndup(text, len < SECRET_MAX ? len : SECRET_MAX);
	bool sealed = !strncmp(copy, MARK, strlen(MARK));
	char *secret = NULL;

	if (sealed && seal->has_key)
		secret = open_sealed(
			seal, name, copy + strlen(MARK), reason_out);
	else if (sealed)
		*reason_out = "it is sealed, and the key is not here";
	else if (*seal->path)
		*reason_out = "it is not sealed";
	else
		secret = xstrdup(copy);
	wipe(copy, strlen(copy));
	free(copy);
	return secret;
}
