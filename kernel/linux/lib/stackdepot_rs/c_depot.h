/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The C stack depot under other names; see c_depot.c. */
#ifndef _STACKDEPOT_C_DEPOT_H
#define _STACKDEPOT_C_DEPOT_H

#include <linux/stackdepot.h>

depot_stack_handle_t c_depot_save_flags(unsigned long *entries, unsigned int nr_entries,
					gfp_t alloc_flags, depot_flags_t depot_flags);
unsigned int c_depot_fetch_into(depot_stack_handle_t handle, unsigned long *entries,
				unsigned int max);
unsigned int c_depot_fetch(depot_stack_handle_t handle, unsigned long **entries);
void c_depot_put(depot_stack_handle_t handle);

/* Makes its table; may be called again. */
int c_depot_init(void);
/* The bytes of its pools. */
unsigned long c_depot_bytes(void);
/* The bytes of its table. */
unsigned long c_depot_table_bytes(void);

#endif
