/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The depot's core, written in Rust, as C calls it.
 *
 * Nothing declared here allocates, locks, sleeps, prints or calls back: any of it may be called from
 * any context, NMI included. Memory is the caller's. kernel/glue/src is the other side; sizes and
 * layouts must agree with it.
 */
#ifndef _STACKDEPOT_SDC_H
#define _STACKDEPOT_SDC_H

#include <linux/types.h>

/* A depot over memory of the caller's: the core's own view, opaque here. */
struct sdc_depot {
	u64 words[64];
} __aligned(64);

/* A ring of events, and how far a reader of it is. */
struct sdc_ring {
	u64 words[32];
} __aligned(64);

struct sdc_cursor {
	u64 words[32];
};

struct sdc_config {
	u64 bytes;		/* the bound: index, slots and numbers together */
	u64 seed;		/* keys the hash */
	u32 payload_words;	/* numbers beside each stack: 0, 1, 2 or 4 */
	u32 max_frames;		/* at most 64; longer stacks are cut and counted */
	u32 lease_ticks;	/* how long a lease lasts; 0: no leases */
	u32 generation_limit;	/* reuses of a slot; U32_MAX but in tests */
};

struct sdc_stats {
	u64 region_bytes;
	u64 slots;
	u64 slot_bits;
	u64 nodes;
	u64 new_stacks;
	u64 evicted_stacks;
	u64 evicted_nodes;
	u64 full;
	u64 contended;
	u64 crowded;
	u64 saturated;
	u64 truncated;
	u64 wide_nodes;
	u64 worn_slots;
	u64 stale_puts;
	u64 stale_fetches;
	u64 windows;
};

/* How a save holds the stack. */
enum sdc_hold {
	SDC_HOLD_NONE = 0,	/* not at all: it may be evicted at once */
	SDC_HOLD_REFERENCE = 1,	/* until sdc_put() */
	SDC_HOLD_LEASE = 2,	/* until the clock moved by lease_ticks */
	SDC_HOLD_FOREVER = 4,
};

int sdc_create(struct sdc_depot *depot, void *base, const struct sdc_config *config);
u32 sdc_save(const struct sdc_depot *depot, const unsigned long *frames, u32 count, u32 hold);
/* Answers how many frames it copied: at most `room`. */
u32 sdc_fetch(const struct sdc_depot *depot, u32 handle, unsigned long *out, u32 room);
u64 sdc_weak(const struct sdc_depot *depot, u32 handle);
u32 sdc_fetch_weak(const struct sdc_depot *depot, u64 weak, unsigned long *out, u32 room);
void sdc_put(const struct sdc_depot *depot, u32 handle);
void sdc_add(const struct sdc_depot *depot, u32 handle, u64 delta);
u64 sdc_payload(const struct sdc_depot *depot, u32 handle);
u32 sdc_next(const struct sdc_depot *depot, u32 *slot, u64 *payload);
void sdc_advance(const struct sdc_depot *depot, u32 ticks);
void sdc_stats(const struct sdc_depot *depot, struct sdc_stats *stats);

enum sdc_kind {
	SDC_ALLOC = 1,
	SDC_FREE = 2,
};

struct sdc_event {
	u64 address;
	u64 size;
	u64 time;
	u64 stack;		/* lasting name, 0: the save was refused */
	u32 thread;
	u32 kind;
};

enum sdc_pushed {
	SDC_PUSHED = 0,
	SDC_NO_STACK = 1,
	SDC_LAPPED = 2,
};

u64 sdc_ring_bytes(u32 events);
u32 sdc_ring_lease_ticks(u32 events);
int sdc_ring_create(struct sdc_ring *ring, void *base, u32 events);
u32 sdc_ring_push(const struct sdc_ring *ring, const struct sdc_depot *depot,
		  const struct sdc_event *event, const unsigned long *frames, u32 count);
void sdc_ring_begin(const struct sdc_ring *ring, struct sdc_cursor *cursor);
int sdc_ring_next(const struct sdc_ring *ring, const struct sdc_depot *depot,
		  struct sdc_cursor *cursor, struct sdc_event *event,
		  unsigned long *out, u32 room);

#endif
