/* SPDX-License-Identifier: Apache-2.0 */
#include "shared/registration.h"
