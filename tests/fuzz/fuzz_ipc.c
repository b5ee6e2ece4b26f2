/* SPDX-License-Identifier: Apache-2.0 */
/* Local messages: any bytes are refused or parsed, nothing else. */
#include <stddef.h>
#include <stdint.h>

#include "shared/ipc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ipc_msg msg;

	if (ipc_unpack(data, size, &msg) == IPC_OK)
		ipc_msg_done(&msg);
	return 0;
}
