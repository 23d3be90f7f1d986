/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the files of this folder share: the kernel's one depot, and its ring. */
#ifndef _STACKDEPOT_INTERNAL_H
#define _STACKDEPOT_INTERNAL_H

#include <linux/bug.h>
#include <linux/kmsan.h>
#include <linux/stackdepot.h>
#include <linux/stacktrace.h>
#include <asm/sections.h>

#include "sdc.h"

/* The kernel's depot; NULL before it is there, and where it is disabled. */
const struct sdc_depot *stack_depot_core(void);

/* The ring that shares its memory (stack_depot.ring=EVENTS); NULL without. */
const struct sdc_ring *stack_depot_ring(void);

static inline bool is_interrupt_entry(unsigned long entry)
{
	return (entry >= (unsigned long)__irqentry_text_start &&
		entry < (unsigned long)__irqentry_text_end) ||
	       (entry >= (unsigned long)__softirqentry_text_start &&
		entry < (unsigned long)__softirqentry_text_end);
}

/*
 * filter_irq_stacks() without instrumentation, which costs more than a save. Most stacks have no frame
 * even near the entries: that is found out without a branch for each.
 */
static inline unsigned int cut_at_interrupt(const unsigned long *entries, unsigned int nr_entries)
{
	unsigned long start = min((unsigned long)__irqentry_text_start,
				  (unsigned long)__softirqentry_text_start);
	unsigned long end = max((unsigned long)__irqentry_text_end,
				(unsigned long)__softirqentry_text_end);
	unsigned int near = 0, i;

	for (i = 0; i + 2 <= nr_entries; i += 2)
		near += (entries[i] - start < end - start) + (entries[i + 1] - start < end - start);
	if (i < nr_entries)
		near += entries[i] - start < end - start;
	for (i = 0; near && i < nr_entries; i++)
		if (is_interrupt_entry(entries[i]))
			/* The entry itself stays. */
			return i + 1;
	return nr_entries;
}

static inline u32 hold_of(depot_flags_t flags)
{
	if (flags & STACK_DEPOT_FLAG_GET)
		return SDC_HOLD_REFERENCE;
	return flags & STACK_DEPOT_FLAG_EVICTABLE ? SDC_HOLD_NONE : SDC_HOLD_FOREVER;
}

/* stack_depot_save_flags() in any depot; NULL: there is none. */
static __always_inline depot_stack_handle_t
depot_save_flags(const struct sdc_depot *core, unsigned long *entries,
		 unsigned int nr_entries, depot_flags_t depot_flags)
{
	if (WARN_ON(depot_flags & ~STACK_DEPOT_FLAGS_MASK))
		return 0;
	/* What an interrupt interrupted would make its stacks all different. */
	nr_entries = cut_at_interrupt(entries, nr_entries);
	if (unlikely(!nr_entries || !core))
		return 0;
	return sdc_save(core, entries, nr_entries, hold_of(depot_flags));
}

/* stack_depot_fetch_into() from any depot. */
static __always_inline unsigned int
depot_fetch_into(const struct sdc_depot *core, depot_stack_handle_t handle,
		 unsigned long *entries, unsigned int max)
{
	unsigned int nr_entries;

	if (unlikely(!core))
		return 0;
	if (!IS_ENABLED(CONFIG_KMSAN))
		return sdc_fetch(core, handle, entries, max);
	nr_entries = sdc_fetch(core, handle, entries, max);
	/* The core is not instrumented: KMSAN did not see the stores. */
	kmsan_unpoison_memory(entries, nr_entries * sizeof(*entries));
	return nr_entries;
}

/* stack_depot_put() to any depot. */
static __always_inline void depot_put(const struct sdc_depot *core, depot_stack_handle_t handle)
{
	if (likely(core))
		sdc_put(core, handle);
}

/* Bytes of depot and ring together: never above stack_depot.bytes. */
unsigned long stack_depot_bytes(void);

#endif
