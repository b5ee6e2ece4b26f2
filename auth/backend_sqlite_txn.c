/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One transaction of the embedded store: all that can refuse it is looked at
 * before the first change, so that nothing has to be undone but by failures
 * that undo the whole turn.
 */
#include "auth/backend_sqlite_impl.h"

static enum backend_status check_compare(
	struct sqlite_backend *b, const struct backend_compare *compare)
{
	uint64_t mod = 0;
	bool equal = false;
	int there = sqlite_db_get(b->db, compare->key, &mod, compare->value,
		compare->len, &equal);
	bool holds = false;

	if (!sqlite_backend_check(b, there))
		return BACKEND_UNAVAILABLE;
	switch (compare->kind) {
	case BACKEND_ABSENT:
		holds = !there;
		break;
	case BACKEND_MOD_REVISION:
		holds = there && mod == compare->mod_revision;
		break;
	case BACKEND_VALUE:
		holds = there && equal;
		break;
	}
	return holds ? BACKEND_OK : BACKEND_COMPARE_FAILED;
}

static enum backend_status check_txn(
	struct sqlite_backend *b, const struct backend_txn *txn)
{
	enum backend_status status = BACKEND_OK;

	if (!backend_txn_is_valid(txn))
		return BACKEND_INVALID;
	for (size_t i = 0; status == BACKEND_OK && i < txn->compare_count; i++)
		status = check_compare(b, &txn->compares[i]);
	if (status != BACKEND_OK)
		return status;
	for (size_t i = 0; i < txn->op_count; i++)
		if (txn->ops[i].kind == BACKEND_PUT && txn->ops[i].lease &&
			!sqlite_lease_exists(b, txn->ops[i].lease))
			return BACKEND_NO_LEASE;
	return BACKEND_OK;
}

/* Whether an op changes anything: a revision counts changes. */
static int has_effect(struct sqlite_backend *b, const struct backend_op *op)
{
	uint64_t mod;

	return op->kind == BACKEND_PUT
		       ? 1
		       : sqlite_db_get(b->db, op->key, &mod, NULL, 0, NULL);
}

static enum backend_status apply(
	struct sqlite_backend *b, const struct backend_txn *txn)
{
	bool advanced = false;

	if (!sqlite_backend_write(b))
		return BACKEND_UNAVAILABLE;
	for (size_t i = 0; i < txn->op_count; i++) {
		const struct backend_op *op = &txn->ops[i];
		int ret = has_effect(b, op);

		if (ret == 0)
			continue;
		if (ret > 0 && !advanced) {
			sqlite_db_advance(b->db);
			advanced = true;
		}
		if (ret > 0)
			ret = op->kind == BACKEND_PUT
				      ? sqlite_db_put(b->db, op)
				      : sqlite_db_delete(b->db, op->key);
		if (!sqlite_backend_check(b, ret))
			return BACKEND_UNAVAILABLE;
	}
	return BACKEND_OK;
}

enum backend_status sqlite_txn_run(
	struct sqlite_backend *b, const struct backend_txn *txn)
{
	enum backend_status status = check_txn(b, txn);

	if (status == BACKEND_OK && txn->op_count > 0)
		status = apply(b, txn);
	return status;
}
