// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A million distinct evictable stacks through the kernel's ring, within stack_depot.bytes=, and the
 * same load on the C depot with GET and put. Reading debugfs stackdepot_test/ring runs it.
 *
 * The ring's own probes stay on meanwhile; events of the test have addresses that no object has.
 */

#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "c_depot.h"
#include "testing.h"

#define EVENTS 1000000U
/* How often the whole ring is read and compared. */
#define LOOK_EVERY 50000U
/* Handles that the C depot's ring holds. */
#define C_RING 4096U
/* No kernel has objects there. */
#define TEST_ADDRESS 0x5ead000000000000ULL

struct looked {
	u64 events;
	u64 ours;
	u64 without_stack;
	u64 wrong;
};

/* Reads every event; those of the test must resolve to their own stacks. */
static void look(struct looked *looked)
{
	struct sdc_cursor *cursor = kmalloc(sizeof(*cursor), GFP_KERNEL);
	unsigned long frames[64];
	struct sdc_event event;
	int count;

	if (!cursor)
		return;
	sdc_ring_begin(stack_depot_ring(), cursor);
	while ((count = sdc_ring_next(stack_depot_ring(), stack_depot_core(), cursor,
				      &event, frames, ARRAY_SIZE(frames))) >= 0) {
		looked->events++;
		looked->without_stack += !count;
		if (event.address >> 32 != TEST_ADDRESS >> 32)
			continue;
		looked->ours++;
		looked->wrong += count != TEST_DEPTH ||
				 !is_nth_stack((u32)event.address, frames, TEST_DEPTH);
	}
	kfree(cursor);
}

static u64 push_all(struct looked *looked)
{
	unsigned long frames[TEST_DEPTH];
	u64 refused = 0;
	u32 number;

	for (number = 1; number <= EVENTS; number++) {
		struct sdc_event event = { .address = TEST_ADDRESS | number, .size = 1, .kind = SDC_ALLOC };

		nth_stack(number, frames, TEST_DEPTH);
		refused += sdc_ring_push(stack_depot_ring(), stack_depot_core(), &event,
					 frames, TEST_DEPTH) != SDC_PUSHED;
		if (number % LOOK_EVERY == 0)
			look(looked);
		if (number % 1024 == 0)
			cond_resched();
	}
	return refused;
}

static void show_ours(struct seq_file *seq)
{
	struct looked looked = {};
	struct sdc_stats stats;
	u64 refused = push_all(&looked);

	sdc_stats(stack_depot_core(), &stats);
	seq_printf(seq, "ours bytes=%lu pushed=%u refused=%llu looked_at=%llu of_test=%llu without_stack=%llu wrong=%llu evicted=%llu\n",
		   stack_depot_bytes(), EVENTS, refused, looked.events, looked.ours,
		   looked.without_stack, looked.wrong, stats.evicted_stacks);
}

static void show_c(struct seq_file *seq)
{
	depot_stack_handle_t *held = kvcalloc(C_RING, sizeof(*held), GFP_KERNEL);
	unsigned long frames[TEST_DEPTH], before = c_depot_bytes(), most = 0;
	u64 refused = 0;
	u32 number;

	if (!held || c_depot_init()) {
		kvfree(held);
		return;
	}
	for (number = 1; number <= EVENTS; number++) {
		depot_stack_handle_t *place = &held[number % C_RING];

		nth_stack(number, frames, TEST_DEPTH);
		c_depot_put(*place);
		*place = c_depot_save_flags(frames, TEST_DEPTH, GFP_KERNEL,
					    STACK_DEPOT_FLAG_GET | STACK_DEPOT_FLAG_CAN_ALLOC);
		refused += !*place;
		most = max(most, c_depot_bytes() - before);
		/* Its freed records need grace periods: give it some. */
		if (number % 4096 == 0)
			schedule_timeout_uninterruptible(1);
	}
	for (number = 0; number < C_RING; number++)
		c_depot_put(held[number]);
	kvfree(held);
	seq_printf(seq, "c pools=%lu table=%lu pushed=%u refused=%llu\n", most,
		   c_depot_table_bytes(), EVENTS, refused);
}

static int ring_test_show(struct seq_file *seq, void *v)
{
	if (stack_depot_ring())
		show_ours(seq);
	else
		seq_puts(seq, "no ring: boot with stack_depot.ring=EVENTS\n");
	show_c(seq);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(ring_test);

static int __init ring_test_init(void)
{
	struct dentry *dir = debugfs_create_dir("stackdepot_test", NULL);

	debugfs_create_file("ring", 0400, dir, NULL, &ring_test_fops);
	return 0;
}
late_initcall(ring_test_init);
