// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * lib/stackdepot.c of Linux behind a few functions. The source is unpacked when the benchmark is
 * built and found by the include path.
 */
#include "linux.h"

#include "lib/stackdepot.c"

/* As many pools as the depot may ever have, and the spare one. */
#define MOST_POOL_COUNT (DEPOT_MAX_POOLS + 1)

static raw_spinlock_t pages_lock;
static char *pages_next, *pages_end;
static void *pages_spare;

struct page *alloc_pages(gfp_t flags, unsigned int order)
{
	size_t bytes = (size_t)1 << (PAGE_SHIFT + order);
	void *pages;

	(void)flags;
	spin_lock(&pages_lock);
	if (!pages_next) {
		pages_next = kvcalloc(MOST_POOL_COUNT, bytes, 0);
		pages_end = pages_next + MOST_POOL_COUNT * bytes;
	}
	pages = pages_spare;
	pages_spare = NULL;
	if (!pages && pages_next < pages_end) {
		pages = pages_next;
		pages_next += bytes;
	}
	spin_unlock(&pages_lock);
	return pages;
}

void free_pages(unsigned long address, unsigned int order)
{
	(void)order;
	spin_lock(&pages_lock);
	pages_spare = (void *)address;
	spin_unlock(&pages_lock);
}

/* An event of the ring of KASAN's tag-based modes. */
struct ring_entry {
	uintptr_t address;
	size_t bytes;
	u32 thread;
	u32 stack;
	bool is_free;
};

/* The address of an entry that is being written. */
#define BUSY ((uintptr_t)1)

static struct ring_entry *ring;
static u64 ring_count, ring_next;
static u32 ring_readers;

/* Once per process: the table as under KASAN, 2^20 buckets; a ring of so many events. */
void bench_linux_init(u32 event_count)
{
	stack_depot_request_early_init();
	stack_depot_early_init();
	ring = kvcalloc(event_count, sizeof(*ring), 0);
	ring_count = event_count;
}

/* Marks a place busy; a place that somebody else writes is passed over. */
static struct ring_entry *ring_claim(uintptr_t *old_address)
{
	for (;;) {
		u64 place = __atomic_fetch_add(&ring_next, 1, __ATOMIC_SEQ_CST);
		struct ring_entry *entry = &ring[place % ring_count];
		uintptr_t old = READ_ONCE(entry->address);

		if (old == BUSY)
			continue;
		if (__atomic_compare_exchange_n(&entry->address, &old, BUSY, false,
						__ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
			*old_address = old;
			return entry;
		}
	}
}

/* Saves with a reference, records the event, gives back the overwritten event's reference. */
void bench_linux_push(u64 address, u64 bytes, bool is_free, unsigned long *frames,
		      unsigned int count)
{
	u32 stack = stack_depot_save_flags(frames, count, 0,
					   STACK_DEPOT_FLAG_CAN_ALLOC | STACK_DEPOT_FLAG_GET);
	u32 old_stack = 0;
	struct ring_entry *entry;
	uintptr_t old_address;

	__atomic_fetch_add(&ring_readers, 1, __ATOMIC_ACQUIRE);
	entry = ring_claim(&old_address);
	if (old_address)
		old_stack = entry->stack;
	WRITE_ONCE(entry->bytes, bytes);
	WRITE_ONCE(entry->thread, 1);
	WRITE_ONCE(entry->stack, stack);
	WRITE_ONCE(entry->is_free, is_free);
	/* Never 0 or BUSY. */
	__atomic_store_n(&entry->address, address + 16, __ATOMIC_RELEASE);
	__atomic_fetch_sub(&ring_readers, 1, __ATOMIC_RELEASE);
	if (old_stack)
		stack_depot_put(old_stack);
}

u32 bench_linux_save(unsigned long *frames, unsigned int count)
{
	return stack_depot_save_flags(frames, count, 0, STACK_DEPOT_FLAG_CAN_ALLOC);
}

u32 bench_linux_get(unsigned long *frames, unsigned int count)
{
	return stack_depot_save_flags(frames, count, 0,
				      STACK_DEPOT_FLAG_CAN_ALLOC | STACK_DEPOT_FLAG_GET);
}

void bench_linux_put(u32 handle)
{
	stack_depot_put(handle);
}

unsigned int bench_linux_fetch(u32 handle, unsigned long **frames)
{
	return stack_depot_fetch(handle, frames);
}
