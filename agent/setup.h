/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* agent_service of the configuration, as agent.h wants it. Pure. */

#include "shared/conf.h"
#include "shared/registration.h"

/* What the agent announces; a service's port is that of its address. Gives. */
struct registration *setup_registration(
	const struct conf_agent *conf, const char *agent_id);
/* The services' addresses, in the order of the registration, borrowed from
 * conf; the array is given. */
const char **setup_addrs(const struct conf_agent *conf);
