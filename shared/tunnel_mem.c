/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots for nghttp2's large blocks: see tunnel_mem.h. Owns one mapping per hub;
 * the lists of free slots lie outside of it, so that a free slot stays
 * untouched.
 *
 * What a newcomer gets wrong: huge pages must be off, or the first touched byte
 * makes two megabytes resident.
 */
#include "shared/tunnel_mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shared/alloc.h"

#define CLASSES 4

/* least and most bytes asked for, and the slot they get */
static const struct slot_class {
	size_t min;
	size_t max;
	size_t slot;
	unsigned per_session;
	bool pages; /* whole pages: given back when freed, so always zero */
} classes[CLASSES] = {
	{1024, 1024, 1024, 2, false},	/* HPACK rings */
	{4096, 4096, 4096, 1, true},	/* stream map */
	{16000, 20480, 20480, 1, true}, /* frame buffer */
	{65536, 69632, 69632, 1, true}, /* frame buffer for 64 KiB frames */
};

struct slots {
	uint8_t *base;
	unsigned count;
	unsigned fresh;	 /* slots from here on were never used */
	uint32_t *freed; /* stack */
	unsigned freed_count;
	unsigned used;
};

struct tunnel_mem {
	uint8_t *base;
	size_t size;
	struct slots slots[CLASSES];
};

static size_t map_size(unsigned slots)
{
	size_t size = 0;

	for (int i = 0; i < CLASSES; i++)
		size += classes[i].slot * classes[i].per_session * slots;
	return (size + 4095) & ~(size_t)4095;
}

struct tunnel_mem *tunnel_mem_new(unsigned slots)
{
	size_t size = map_size(slots);
	struct tunnel_mem *mem;
	uint8_t *next;
	void *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		return NULL;
	madvise(base, size, MADV_NOHUGEPAGE);
	mem = xcalloc(1, sizeof(*mem));
	mem->base = next = base;
	mem->size = size;
	/* Largest first: then each class starts on a page. */
	for (int i = CLASSES - 1; i >= 0; i--) {
		struct slots *own = &mem->slots[i];

		own->base = next;
		own->count = classes[i].per_session * slots;
		own->freed = xcalloc(own->count, sizeof(*own->freed));
		next += classes[i].slot * own->count;
	}
	return mem;
}

void tunnel_mem_free(struct tunnel_mem *mem)
{
	if (!mem)
		return;
	for (int i = 0; i < CLASSES; i++)
		free(mem->slots[i].freed);
	munmap(mem->base, mem->size);
	free(mem);
}

size_t tunnel_mem_used(const struct tunnel_mem *mem)
{
	size_t used = 0;

	for (int i = 0; i < CLASSES; i++)
		used += mem->slots[i].used;
	return used;
}

/* -1: malloc. */
static int class_of_size(size_t size)
{
	for (int i = 0; i < CLASSES; i++)
		if (size >= classes[i].min && size <= classes[i].max)
			return i;
	return -1;
}

static int class_of_block(const struct tunnel_mem *mem, const void *ptr)
{
	size_t offset;

	if (!mem || (const uint8_t *)ptr < mem->base)
		return -1;
	offset = (size_t)((const uint8_t *)ptr - mem->base);
	if (offset >= mem->size)
		return -1;
	for (int i = 0; i < CLASSES; i++)
		if ((const uint8_t *)ptr >= mem->slots[i].base)
			return i; /* the classes lie in falling order */
	return -1;
}

static bool is_frame(int class)
{
	return class >= 2;
}

static void *take_slot(struct tunnel_mem_user *user, int class)
{
	struct slots *slots = &user->mem->slots[class];
	unsigned index;
	uint8_t *slot;

	if (slots->freed_count > 0)
		index = slots->freed[--slots->freed_count];
	else if (slots->fresh < slots->count)
		index = slots->fresh++;
	else
		return NULL;
	slots->used++;
	slot = slots->base + (size_t)index * classes[class].slot;
	if (is_frame(class) && !user->frames[0])
		user->frames[0] = slot;
	else if (is_frame(class) && !user->frames[1])
		user->frames[1] = slot;
	return slot;
}

static void give_slot(struct tunnel_mem_user *user, int class, uint8_t *slot)
{
	struct slots *slots = &user->mem->slots[class];
	size_t offset = (size_t)(slot - slots->base);
	size_t size = classes[class].slot;

	for (int i = 0; i < 2; i++)
		if (user->frames[i] == slot)
			user->frames[i] = NULL;
	if (classes[class].pages && madvise(slot, size, MADV_DONTNEED) < 0)
		memset(slot, 0, size);
	slots->freed[slots->freed_count++] = (uint32_t)(offset / size);
	slots->used--;
}

static void *mem_malloc(size_t size, void *arg)
{
	struct tunnel_mem_user *user = arg;
	int class = user->mem ? class_of_size(size) : -1;
	void *ptr = class >= 0 ? take_slot(user, class) : NULL;

	return ptr ? ptr : malloc(size);
}

static void *mem_calloc(size_t count, size_t size, void *arg)
{
	struct tunnel_mem_user *user = arg;
	size_t bytes;
	void *ptr = NULL;
	int class;

	if (__builtin_mul_overflow(count, size, &bytes))
		return NULL;
	class = user->mem ? class_of_size(bytes) : -1;
	if (class >= 0)
		ptr = take_slot(user, class);
	if (!ptr)
		return calloc(count, size);
	if (!classes[class].pages)
		memset(ptr, 0, bytes);
	return ptr;
}

static void mem_free(void *ptr, void *arg)
{
	struct tunnel_mem_user *user = arg;
	int class = class_of_block(user->mem, ptr);

	if (class >= 0)
		give_slot(user, class, ptr);
	else
		free(ptr);
}

static void *mem_realloc(void *ptr, size_t size, void *arg)
{
	struct tunnel_mem_user *user = arg;
	int class = class_of_block(user->mem, ptr);
	void *moved;

	if (!ptr) /* how nghttp2 asks for a frame buffer */
		return mem_malloc(size, arg);
	if (class < 0)
		return realloc(ptr, size);
	if (size <= classes[class].slot)
		return ptr;
	moved = mem_malloc(size, arg);
	if (!moved)
		return NULL;
	memcpy(moved, ptr, classes[class].slot);
	give_slot(user, class, ptr);
	return moved;
}

nghttp2_mem tunnel_mem_functions(struct tunnel_mem_user *user)
{
	return (nghttp2_mem){
		.mem_user_data = user,
		.malloc = mem_malloc,
		.free = mem_free,
		.calloc = mem_calloc,
		.realloc = mem_realloc,
	};
}

void tunnel_mem_trim(struct tunnel_mem_user *user)
{
	for (int i = 0; i < 2; i++) {
		void *frame = user->frames[i];

		if (frame)
			madvise(frame,
				classes[class_of_block(user->mem, frame)].slot,
				MADV_DONTNEED);
	}
}
