/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* cmocka wants these, in this order, before its own header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
