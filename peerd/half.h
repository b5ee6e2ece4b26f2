/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Who may work on one direction of a stream, of two threads without a lock.
 *
 *           nothing to do yet: half_park()
 *      BUSY ------------------------------> WAITING
 *      ^  |  <------- half_wake() --------
 *      |  | half_wake() while at work
 *      |  v
 *   SIGNALLED (half_park() fails: try once more)        BUSY --> DONE
 *
 * A half begins BUSY and belongs to its maker. Pure but for its atomics.
 */

#include <stdatomic.h>
#include <stdbool.h>

enum half_state { HALF_BUSY, HALF_WAITING, HALF_SIGNALLED, HALF_DONE };

struct half {
	_Atomic int state;
	atomic_bool stop; /* its holder ends it at the next look */
};

/* By the holder. True: left waiting, whoever wakes it goes on. False: something
 * has happened meanwhile, the caller still holds it and looks again. */
bool half_park(struct half *half);
/* By anyone. True: it was waiting and is the caller's now. */
bool half_wake(struct half *half);
/* By anyone. True: it was waiting and is the caller's now; else nothing has
 * happened. */
bool half_take(struct half *half);
/* By anyone: half_wake(), after telling it to stop. */
bool half_stop(struct half *half);
/* By the holder: nobody will hold it again. */
void half_finish(struct half *half);
