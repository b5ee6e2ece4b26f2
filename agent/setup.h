/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The configuration, as agent.h wants it. */

#include "agent/agent.h"
#include "shared/conf.h"
#include "shared/registration.h"

/* What the agent announces; a service's port is that of its address. Gives. */
struct registration *setup_registration(
	const struct conf_agent *conf, const char *agent_id);
/* The services' addresses, in the order of the registration, borrowed from
 * conf; the array is given. */
const char **setup_addrs(const struct conf_agent *conf);

/* An agent with resolver and hub of its own, which live as long as the process.
 * NULL and *error_out (gives). Borrows loop and metrics, not conf. */
/* The files of somebody else's PKI: 0 and *identity_out (gives; NULL: none are
 * configured), or -1 and *error_out (gives). */
int setup_own_identity(const struct conf *conf,
	struct tls_identity **identity_out, char **error_out);
struct agent *setup_agent(const struct conf *conf, struct loop *loop,
	struct metrics *metrics, char **error_out);
