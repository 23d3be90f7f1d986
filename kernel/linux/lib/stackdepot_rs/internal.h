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

/* filter_irq_stacks() without instrumentation, which costs more than a save. */
static inline unsigned int cut_at_interrupt(const unsigned long *entries, unsigned int nr_entries)
{
	unsigned int i;

	for (i = 0; i < nr_entries; i++) {
		unsigned long entry = entries[i];

		if ((entry >= (unsigned long)__irqentry_text_start &&
		     entry < (unsigned long)__irqentry_text_end) ||
		    (entry >= (unsigned long)__softirqentry_text_start &&
		     entry < (unsigned long)__softirqentry_text_end))
			/* The entry itself stays. */
			return i + 1;
	}
	return nr_entries;
}

/* Bytes of depot and ring together: never above stack_depot.bytes. */
unsigned long stack_depot_bytes(void);

#endif
