/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON to protobuf and back for joining agents, who link no protobuf. Whether
 * the token is good is authd's business: here only shapes are checked.
 *
 * What a newcomer gets wrong: the role is set here, not by the sender. What
 * comes in at 3080 can only ever become an agent.
 */
#include <jansson.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "auth.pb-c.h"
#include "proxy/join.h"
#include "shared/alloc.h"

#define DER_MAX 8192

/* Decodes the base64 text of a field; gives, NULL when it is not that. Stricter
 * than EVP_DecodeBlock(), which skips spaces and takes '=' anywhere. */
static uint8_t *decode_der(const json_t *value, size_t *len_out)
{
	const char *text = json_string_value(value);
	size_t len = json_string_length(value);
	size_t digits, padding;
	uint8_t *der;

	if (!text || !len || len % 4 || len / 4 * 3 > DER_MAX)
		return NULL;
	digits = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrst"
			      "uvwxyz0123456789+/");
	padding = strspn(text + digits, "=");
	if (digits + padding != len || padding > 2)
		return NULL;
	der = xcalloc(1, len / 4 * 3);
	if (EVP_DecodeBlock(der, (const unsigned char *)text, (int)len) < 0) {
		free(der);
		return NULL;
	}
	*len_out = len / 4 * 3 - padding; /* it counts padding as bytes */
	return der;
}

/* Overwrites the token, which the parsed JSON holds a copy of. */
static void wipe_token(json_t *root)
{
	json_t *token = json_object_get(root, "token");
	char *text = (char *)json_string_value(token);

	if (text)
		wipe(text, json_string_length(token));
}

static uint8_t *pack(const ProtobufCMessage *message, size_t *len_out)
{
	uint8_t *packed =
		xcalloc(1, protobuf_c_message_get_packed_size(message));

	*len_out = protobuf_c_message_pack(message, packed);
	return packed;
}

static uint8_t *pack_join(
	json_t *root, size_t *len_out, const char **reason_out)
{
	Peerway__Auth__JoinRequest request = PEERWAY__AUTH__JOIN_REQUEST__INIT;
	uint8_t *packed = NULL;

	request.role = PEERWAY__AUTH__ROLE__ROLE_NODE;
	request.token =
		(char *)json_string_value(json_object_get(root, "token"));
	request.host_uuid =
		(char *)json_string_value(json_object_get(root, "host_uuid"));
	request.name = (char *)json_string_value(json_object_get(root, "name"));
	request.csr.data =
		decode_der(json_object_get(root, "csr"), &request.csr.len);
	if (!request.token || !request.host_uuid || !request.name)
		*reason_out = "token, host_uuid and name must be strings";
	else if (!request.csr.data)
		*reason_out = "csr must be DER in base64";
	else
		packed = pack(&request.base, len_out);
	free(request.csr.data);
	return packed;
}

static uint8_t *pack_renew(
	json_t *root, size_t *len_out, const char **reason_out)
{
	Peerway__Auth__RenewRequest request =
		PEERWAY__AUTH__RENEW_REQUEST__INIT;
	uint8_t *packed = NULL;

	request.cert.data =
		decode_der(json_object_get(root, "cert"), &request.cert.len);
	request.csr.data =
		decode_der(json_object_get(root, "csr"), &request.csr.len);
	if (!request.cert.data || !request.csr.data)
		*reason_out = "cert and csr must be DER in base64";
	else
		packed = pack(&request.base, len_out);
	free(request.cert.data);
	free(request.csr.data);
	return packed;
}

uint8_t *join_request_pack(bool renew, const void *body, size_t len,
	size_t *len_out, const char **reason_out)
{
	json_t *root;
	uint8_t *packed;

	if (len > JOIN_BODY_MAX) {
		*reason_out = "the body is too large";
		return NULL;
	}
	root = json_loadb(body, len, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(root)) {
		*reason_out = "the body must be a JSON object";
		json_decref(root);
		return NULL;
	}
	packed = renew ? pack_renew(root, len_out, reason_out)
		       : pack_join(root, len_out, reason_out);
	wipe_token(root);
	json_decref(root);
	return packed;
}

char *join_response_to_json(const uint8_t *packed, size_t len)
{
	Peerway__Auth__JoinResponse *response =
		peerway__auth__join_response__unpack(NULL, len, packed);
	json_t *root;
	char *text = NULL;

	if (!response)
		return NULL;
	root = json_pack("{s:s, s:s, s:s, s:s}", "cert_chain",
		response->cert_chain, "host_ca", response->host_ca, "user_ca",
		response->user_ca, "cluster_name", response->cluster_name);
	if (root)
		text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	peerway__auth__join_response__free_unpacked(response, NULL);
	return text;
}

int join_http_status(uint32_t grpc_status)
{
	switch (grpc_status) {
	case 3: /* INVALID_ARGUMENT */
		return 400;
	case 16: /* UNAUTHENTICATED */
		return 401;
	case 7: /* PERMISSION_DENIED */
		return 403;
	case 6: /* ALREADY_EXISTS */
		return 409;
	case 4: /* DEADLINE_EXCEEDED */
		return 504;
	default:
		return 503;
	}
}
