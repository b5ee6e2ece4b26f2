/* SPDX-License-Identifier: Apache-2.0 */
#include "shared/ipc_link.h"
