// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The C stack depot under other names, so that one kernel holds both and a test can compare them.
 *
 * Its source is compiled as it is. It gets the table that it has where it is the kernel's depot:
 * 2^20 buckets under KASAN.
 */

#include <linux/debugfs.h>

#undef pr_fmt
#define stack_depot_request_early_init	c_depot_request_early_init
#define stack_depot_early_init		c_depot_early_init
#define stack_depot_init		c_depot_init_table
#define stack_depot_save_flags		c_depot_save_flags
#define stack_depot_save		c_depot_save
#define __stack_depot_get_stack_record	c_depot_get_stack_record
#define stack_depot_fetch		c_depot_fetch
#define stack_depot_fetch_into		c_depot_fetch_into
#define stack_depot_put			c_depot_put
#define stack_depot_print		c_depot_print
#define stack_depot_snprint		c_depot_snprint
#define stack_depot_set_extra_bits	c_depot_set_extra_bits
#define stack_depot_get_extra_bits	c_depot_get_extra_bits
/* Its folder in debugfs would be the kernel's. */
#define debugfs_create_dir(name, parent) debugfs_create_dir("stackdepot_c", parent)

#include "../stackdepot.c"

#include "c_depot.h"

int c_depot_init(void)
{
	if (kasan_enabled())
		stack_bucket_number_order = STACK_BUCKET_NUMBER_ORDER_MAX;
	return c_depot_init_table();
}

unsigned long c_depot_bytes(void)
{
	return pools_num * DEPOT_POOL_SIZE;
}

unsigned long c_depot_table_bytes(void)
{
	return (stack_hash_mask + 1UL) * sizeof(*stack_table);
}
