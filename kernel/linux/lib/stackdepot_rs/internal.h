/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the files of this folder share: the kernel's one depot, and its ring. */
#ifndef _STACKDEPOT_INTERNAL_H
#define _STACKDEPOT_INTERNAL_H

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

/* Bytes of depot and ring together: never above stack_depot.bytes. */
unsigned long stack_depot_bytes(void);

#endif
