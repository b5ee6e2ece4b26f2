/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * 128 random bits that name one client connection in every daemon's log. Pure
 * but for the randomness.
 */

#include <stdbool.h>
#include <stdint.h>

#define CONNECTION_ID_SIZE 16

void connection_id_make(uint8_t out[CONNECTION_ID_SIZE]);
/* Lower-case hex, 33 bytes with its end. */
void connection_id_format(const uint8_t id[CONNECTION_ID_SIZE], char *out);
/* False, and out untouched, unless text is 32 hex digits. */
bool connection_id_parse(const char *text, uint8_t out[CONNECTION_ID_SIZE]);
