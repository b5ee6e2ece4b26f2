/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Renew: the same certificate again, with a later end. The request proves by
 * itself that its sender holds the key (the signing request is signed by the
 * key of the certificate), so a proxy may pass it on and gains nothing. What a
 * newcomer gets wrong: what the new certificate says comes from the store, not
 * from the old certificate, and a host that the store no longer knows has been
 * cut off.
 */
#include <grpc/status.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "auth.pb-c.h"
#include "auth/authd.h"
#include "auth/host.h"
#include "auth/join.h"
#include "shared/alloc.h"
#include "shared/log.h"
#include "shared/pki.h"

#define CERT_MAX 16384

struct renewal {
	struct authd *auth;
	struct rpc_server_call *call;
	struct host_identity who;
	struct host host; /* as it is known */
	EVP_PKEY *key;
};

static void renewal_free(struct renewal *renewal)
{
	host_deinit(&renewal->host);
	EVP_PKEY_free(renewal->key);
	free(renewal);
}

static void refuse(struct renewal *renewal, int status, const char *why)
{
	metric_add(&renewal->auth->metrics, METRIC_RENEWALS_REFUSED, 1);
	log_limited(LOG_WARN, "renewal refused: %s host=%s name=%s", why,
		renewal->who.uuid, renewal->who.agent_name);
	rpc_fail(renewal->call, status, "%s", why);
	renewal_free(renewal);
}

static void on_stored(void *arg, enum backend_status status, uint64_t revision)
{
	struct renewal *renewal = arg;
	const struct host *host = &renewal->host;

	if (status != BACKEND_OK) {
		refuse(renewal,
			status == BACKEND_COMPARE_FAILED
				? GRPC_STATUS_UNAVAILABLE
				: authd_status(status),
			backend_status_text(status));
		return;
	}
	if (join_answer(renewal->auth, renewal->call, host, renewal->key)) {
		metric_add(&renewal->auth->metrics, METRIC_RENEWALS, 1);
		log_info("host renewed: role=%s host=%s name=%s",
			host_role_text(host->role), host->uuid,
			host->agent_name);
	}
	renewal_free(renewal);
}

static void on_host(void *arg, const struct backend_range_result *result)
{
	struct renewal *renewal = arg;
	char pin[80];

	if (result->status != BACKEND_OK) {
		refuse(renewal, authd_status(result->status),
			backend_status_text(result->status));
		return;
	}
	if (result->count == 0 ||
		host_decode(result->kvs[0].value, result->kvs[0].len,
			&renewal->host) < 0) {
		refuse(renewal, GRPC_STATUS_PERMISSION_DENIED,
			"this host is not known here any more; join again");
		return;
	}
	pki_spki_pin(renewal->key, pin, sizeof(pin));
	if (strcmp(pin, renewal->host.pin))
		refuse(renewal, GRPC_STATUS_PERMISSION_DENIED,
			"this host uuid belongs to another key");
	else
		join_store(renewal->auth, &renewal->host,
			result->kvs[0].mod_revision, on_stored, renewal);
}

static X509 *parse_cert(const ProtobufCBinaryData *der)
{
	const unsigned char *at = der->data;
	X509 *cert;

	if (der->len == 0 || der->len > CERT_MAX)
		return NULL;
	cert = d2i_X509(NULL, &at, (long)der->len);
	if (cert && at == der->data + der->len)
		return cert;
	X509_free(cert);
	ERR_clear_error();
	return NULL;
}

static bool add_cas(X509_STORE *store, const struct ca_set *set)
{
	return X509_STORE_add_cert(store, set->active.cert) &&
	       (!set->other.cert ||
		       X509_STORE_add_cert(store, set->other.cert));
}

/* Signed by a CA of ours that is trusted, for a client, and valid now. */
static bool is_ours(X509 *cert, const struct ca_set *set)
{
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	bool ok = store && ctx && add_cas(store, set) &&
		  X509_STORE_CTX_init(ctx, store, cert, NULL) &&
		  X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_CLIENT) &&
		  X509_verify_cert(ctx) == 1;

	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	ERR_clear_error();
	return ok;
}

/* NULL, or what is wrong; then *status_out says which kind. */
static const char *check_cert(
	struct renewal *renewal, X509 *cert, int *status_out)
{
	struct authd *auth = renewal->auth;
	const char *reason;

	*status_out = GRPC_STATUS_UNAUTHENTICATED;
	if (!is_ours(cert, &auth->cas->host))
		return "the certificate has ended, or was issued by a CA that "
		       "is not this cluster's or has been withdrawn; join "
		       "again";
	if (identity_of_host(
		    cert, auth->conf->cluster_name, &renewal->who, &reason) < 0)
		return reason;
	*status_out = GRPC_STATUS_PERMISSION_DENIED;
	if (renewal->who.roles != IDENTITY_PROXY &&
		renewal->who.roles != IDENTITY_NODE)
		return "a certificate of this role is not renewed";
	if (EVP_PKEY_eq(X509_get0_pubkey(cert), renewal->key) != 1)
		return "the request is not signed with the certificate's key";
	return NULL;
}

static const char *check(struct renewal *renewal,
	const Peerway__Auth__RenewRequest *request, int *status_out)
{
	X509 *cert = parse_cert(&request->cert);
	char *error = NULL;
	const char *wrong;

	*status_out = GRPC_STATUS_INVALID_ARGUMENT;
	if (!cert)
		return "the certificate cannot be read";
	renewal->key = pki_csr_key(request->csr.data, request->csr.len, &error);
	free(error);
	if (!renewal->key)
		wrong = "the signing request is not valid";
	else
		wrong = check_cert(renewal, cert, status_out);
	X509_free(cert);
	return wrong;
}

void renew_handle(struct rpc_server_call *call, void *arg,
	const struct host_identity *caller, const ProtobufCMessage *message)
{
	struct renewal *renewal = xcalloc(1, sizeof(*renewal));
	struct backend_range range = {.exact = true, .limit = 1};
	char key[HOST_KEY_MAX];
	const char *wrong;
	int status;

	renewal->auth = arg;
	renewal->call = call;
	wrong = check(renewal, (const void *)message, &status);
	if (wrong) {
		refuse(renewal, status, wrong);
		return;
	}
	host_key(renewal->who.roles, renewal->who.uuid, key);
	range.prefix = key;
	backend_range(renewal->auth->backend, &range, on_host, renewal);
}
