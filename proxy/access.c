/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Access decisions; see the header. Pure. What a newcomer gets wrong: the user
 * comes from the certificate alone, never from a header that a client wrote.
 */
#include "proxy/access.h"

bool access_is_allowed(
	const struct access_request *request, const char **reason_out)
{
	if (request->user && request->user->name[0])
		return true;
	if (request->allowed_from)
		return true;
	*reason_out = "nobody is named by a certificate";
	return false;
}
