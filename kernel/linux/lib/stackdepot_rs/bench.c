// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Both depots timed in one kernel, in turns: insert, hit, get+put, fetch.
 *
 * The stacks have the shape of the upstream proposal: 32768 of them, 32 frames each, 75 % of the frames
 * shared. They are inserted in 32 chunks, each into one depot and then into the other, which of them
 * first alternating; then 32 passes over all of them for each of the other operations. The figures are
 * medians of the chunks' and passes' nanoseconds for one operation, and medians of their ratios.
 * Reading debugfs stackdepot_test/bench runs it.
 */

#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/ktime.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/sort.h>

#include "c_depot.h"
#include "testing.h"

#define STACKS	32768U
#define DEPTH	32U
#define SHARED	24U
#define PASSES	32U
#define CHUNK	(STACKS / PASSES)
/* Stacks that share their outer frames. */
#define SIBLINGS 16U

/* Everything that a run needs. */
struct bench {
	struct test_depot *own;
	unsigned long (*frames)[DEPTH];
	u32 *ours;
	u32 *cs;
	unsigned long out[64];
	u64 bad;
};

static void make_stacks(struct bench *bench, u64 salt)
{
	u32 number, i;

	for (number = 0; number < STACKS; number++) {
		for (i = 0; i < DEPTH; i++) {
			u64 seed = i < DEPTH - SHARED ? number : STACKS + number / SIBLINGS;
			u32 low = ((seed + salt) * DEPTH + i) * GOLDEN_RATIO_64 >> 38;

			bench->frames[number][i] = 0xffffffffa0000000UL | low << 2;
		}
		bench->frames[number][0] = 0xffffffff00000000UL | (salt << 16 | number);
	}
}

/* One operation over some of the stacks, on one of the depots. */
typedef void (*op_t)(struct bench *bench, u32 first, u32 count);

static void our_save(struct bench *bench, u32 first, u32 count)
{
	for (u32 i = first; i < first + count; i++)
		bench->ours[i] = sdc_save(&bench->own->depot, bench->frames[i],
					  cut_at_interrupt(bench->frames[i], DEPTH),
					  SDC_HOLD_FOREVER);
}

static void c_save(struct bench *bench, u32 first, u32 count)
{
	for (u32 i = first; i < first + count; i++)
		bench->cs[i] = c_depot_save_flags(bench->frames[i], DEPTH, GFP_KERNEL,
						  STACK_DEPOT_FLAG_CAN_ALLOC);
}

static void our_get_put(struct bench *bench, u32 first, u32 count)
{
	for (u32 i = first; i < first + count; i++)
		sdc_put(&bench->own->depot,
			sdc_save(&bench->own->depot, bench->frames[i],
				 cut_at_interrupt(bench->frames[i], DEPTH),
				 SDC_HOLD_REFERENCE));
}

/*
 * Only references that do not end the stack: the C depot is given another one of each first.
 */
static void c_get_put(struct bench *bench, u32 first, u32 count)
{
	for (u32 i = first; i < first + count; i++)
		c_depot_put(c_depot_save_flags(bench->frames[i], DEPTH, GFP_KERNEL,
					       STACK_DEPOT_FLAG_CAN_ALLOC |
					       STACK_DEPOT_FLAG_GET));
}

static void our_fetch(struct bench *bench, u32 first, u32 count)
{
	for (u32 i = first; i < first + count; i++)
		bench->bad += sdc_fetch(&bench->own->depot, bench->ours[i], bench->out, 64) != DEPTH;
}

static void c_fetch(struct bench *bench, u32 first, u32 count)
{
	for (u32 i = first; i < first + count; i++)
		bench->bad += c_depot_fetch_into(bench->cs[i], bench->out, 64) != DEPTH;
}

static u64 timed(op_t op, struct bench *bench, u32 first, u32 count)
{
	u64 start = ktime_get_ns();

	op(bench, first, count);
	start = ktime_get_ns() - start;
	cond_resched();
	return start;
}

static int compare(const void *left, const void *right)
{
	u64 l = *(const u64 *)left, r = *(const u64 *)right;

	return l < r ? -1 : l > r;
}

static u64 median(u64 *values)
{
	sort(values, PASSES, sizeof(*values), compare, NULL);
	return values[PASSES / 2];
}

/* Both depots in turns; `step` is how far a pass begins behind the last one: 0, or a chunk. */
static void measure(struct seq_file *seq, struct bench *bench, const char *name,
		    op_t ours, op_t cs, u32 step)
{
	u32 count = step ?: STACKS, pass;
	u64 our_ns[PASSES], c_ns[PASSES], ratios[PASSES];

	for (pass = 0; pass < PASSES; pass++) {
		if (pass & 1)
			our_ns[pass] = timed(ours, bench, pass * step, count);
		c_ns[pass] = timed(cs, bench, pass * step, count);
		if (!(pass & 1))
			our_ns[pass] = timed(ours, bench, pass * step, count);
		ratios[pass] = our_ns[pass] * 1000 / max(c_ns[pass], 1ULL);
	}
	seq_printf(seq, "%s ours_ns=%llu c_ns=%llu ratio_permille=%llu\n", name,
		   median(our_ns) / count, median(c_ns) / count, median(ratios));
}

static void check(struct seq_file *seq, struct bench *bench)
{
	struct sdc_stats stats;
	u32 i, lost = 0;

	for (i = 0; i < STACKS; i++) {
		lost += !bench->ours[i] || !bench->cs[i];
		if (sdc_fetch(&bench->own->depot, bench->ours[i], bench->out, 64) != DEPTH ||
		    memcmp(bench->out, bench->frames[i], sizeof(bench->frames[i])))
			bench->bad++;
		if (c_depot_fetch_into(bench->cs[i], bench->out, 64) != DEPTH ||
		    memcmp(bench->out, bench->frames[i], sizeof(bench->frames[i])))
			bench->bad++;
	}
	sdc_stats(&bench->own->depot, &stats);
	seq_printf(seq, "check lost=%u bad=%llu our_nodes=%llu our_bytes=%llu c_pools=%lu c_table=%lu\n",
		   lost, bench->bad, stats.nodes, stats.nodes * 80, c_depot_bytes(),
		   c_depot_table_bytes());
}

static void run(struct seq_file *seq, struct bench *bench)
{
	make_stacks(bench, 0);
	measure(seq, bench, "insert", our_save, c_save, CHUNK);
	measure(seq, bench, "hit", our_save, c_save, 0);
	measure(seq, bench, "fetch", our_fetch, c_fetch, 0);
	check(seq, bench);
	/* Other stacks, which the C depot must have as evictable ones from the start. */
	make_stacks(bench, 1);
	for (u32 i = 0; i < STACKS; i++) {
		bench->cs[i] = c_depot_save_flags(bench->frames[i], DEPTH, GFP_KERNEL,
						  STACK_DEPOT_FLAG_CAN_ALLOC | STACK_DEPOT_FLAG_GET);
		bench->ours[i] = sdc_save(&bench->own->depot, bench->frames[i], DEPTH,
					  SDC_HOLD_REFERENCE);
	}
	measure(seq, bench, "get_put", our_get_put, c_get_put, 0);
	check(seq, bench);
	for (u32 i = 0; i < STACKS; i++)
		c_depot_put(bench->cs[i]);
}

static int bench_show(struct seq_file *seq, void *v)
{
	struct sdc_config config = test_config(SZ_16M);
	struct bench *bench = kvzalloc(sizeof(*bench), GFP_KERNEL);

	if (!bench)
		return -ENOMEM;
	bench->own = test_depot_new(&config);
	bench->frames = kvcalloc(STACKS, sizeof(*bench->frames), GFP_KERNEL);
	bench->ours = kvcalloc(STACKS, sizeof(u32), GFP_KERNEL);
	bench->cs = kvcalloc(STACKS, sizeof(u32), GFP_KERNEL);
	if (bench->own && bench->frames && bench->ours && bench->cs && !c_depot_init())
		run(seq, bench);
	kvfree(bench->cs);
	kvfree(bench->ours);
	kvfree(bench->frames);
	test_depot_free(bench->own);
	kvfree(bench);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(bench);

static int __init bench_init(void)
{
	struct dentry *dir = debugfs_lookup("stackdepot_test", NULL);

	debugfs_create_file("bench", 0400, dir, NULL, &bench_fops);
	dput(dir);
	return 0;
}
/* After the folder was made by ring_test.c. */
late_initcall_sync(bench_init);
