/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Points in time as status shows them: RFC 3339, UTC, milliseconds. */

#include <stdint.h>

#define CLOCK_TEXT_SIZE 32

/* Unix milliseconds. */
int64_t clock_text_now(void);
void clock_text(int64_t unix_ms, char out[CLOCK_TEXT_SIZE]);
