// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Both depots timed in one kernel, in turns: insert, hit, fetch, get+put.
 *
 * Stacks are inserted in 32 chunks, each into one depot and then into the other, which of them first
 * alternating; then come 32 passes for each of the other operations. The figures are medians of the
 * chunks' and passes' times of one operation, and medians of their ratios. All of it first on one CPU,
 * then on all at once, each with its share of a chunk or pass. Reading debugfs stackdepot_test/bench
 * runs it. Neighbours: bench_stacks.c (which stacks), bench_cpus.c (the CPUs).
 */

#include <linux/cpumask.h>
#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/seq_file.h>
#include <linux/sort.h>

#include "bench.h"
#include "c_depot.h"

#define POOL_KIB(bytes) ((bytes) >> 10)

/* The depot of ours that is timed. */
static const struct sdc_depot *timed;

/*
 * What stack_depot_save_flags(), stack_depot_fetch_into() and stack_depot_put() are in a kernel with our
 * depot: functions that first look whether it is there.
 */
static noinline depot_stack_handle_t our_save_flags(unsigned long *entries,
						    unsigned int nr_entries, gfp_t alloc_flags,
						    depot_flags_t flags)
{
	return depot_save_flags(smp_load_acquire(&timed), entries, nr_entries, flags);
}

static noinline unsigned int our_fetch_into(depot_stack_handle_t handle, unsigned long *entries,
					    unsigned int max)
{
	return depot_fetch_into(smp_load_acquire(&timed), handle, entries, max);
}

static noinline void our_put(depot_stack_handle_t handle)
{
	depot_put(smp_load_acquire(&timed), handle);
}

static void our_insert(struct bench_worker *self, u32 first, u32 count)
{
	struct bench *bench = self->bench;

	for (u32 i = first; i < first + count; i++) {
		struct bench_stack *stack = &bench->stacks.all[i];

		bench->ours[i] = our_save_flags(stack->frames, stack->depth, GFP_KERNEL,
						STACK_DEPOT_FLAG_CAN_ALLOC);
	}
}

static void c_insert(struct bench_worker *self, u32 first, u32 count)
{
	struct bench *bench = self->bench;

	for (u32 i = first; i < first + count; i++) {
		struct bench_stack *stack = &bench->stacks.all[i];

		bench->cs[i] = c_depot_save_flags(stack->frames, stack->depth, GFP_KERNEL,
						  STACK_DEPOT_FLAG_CAN_ALLOC);
	}
}

static void our_hit(struct bench_worker *self, u32 first, u32 count)
{
	struct bench *bench = self->bench;

	for (u32 i = first; i < first + count; i++) {
		u32 number = bench->stacks.order[i];
		struct bench_stack *stack = &bench->stacks.all[number];

		self->bad += our_save_flags(stack->frames, stack->depth, GFP_KERNEL,
					    STACK_DEPOT_FLAG_CAN_ALLOC) != bench->ours[number];
	}
}

static void c_hit(struct bench_worker *self, u32 first, u32 count)
{
	struct bench *bench = self->bench;

	for (u32 i = first; i < first + count; i++) {
		u32 number = bench->stacks.order[i];
		struct bench_stack *stack = &bench->stacks.all[number];

		self->bad += c_depot_save_flags(stack->frames, stack->depth, GFP_KERNEL,
						STACK_DEPOT_FLAG_CAN_ALLOC) != bench->cs[number];
	}
}

static void our_get_put(struct bench_worker *self, u32 first, u32 count)
{
	struct bench *bench = self->bench;

	for (u32 i = first; i < first + count; i++) {
		struct bench_stack *stack = &bench->stacks.all[bench->stacks.order[i]];

		our_put(our_save_flags(stack->frames, stack->depth, GFP_KERNEL,
				       STACK_DEPOT_FLAG_CAN_ALLOC | STACK_DEPOT_FLAG_GET));
	}
}

/* Only references that do not end the stack: prepare_references() took another one of each. */
static void c_get_put(struct bench_worker *self, u32 first, u32 count)
{
	struct bench *bench = self->bench;

	for (u32 i = first; i < first + count; i++) {
		struct bench_stack *stack = &bench->stacks.all[bench->stacks.order[i]];

		c_depot_put(c_depot_save_flags(stack->frames, stack->depth, GFP_KERNEL,
					       STACK_DEPOT_FLAG_CAN_ALLOC |
					       STACK_DEPOT_FLAG_GET));
	}
}

static void our_fetch(struct bench_worker *self, u32 first, u32 count)
{
	struct bench *bench = self->bench;

	for (u32 i = first; i < first + count; i++) {
		u32 number = bench->stacks.order[i];

		self->bad += our_fetch_into(bench->ours[number], self->out, 64) !=
			     bench->stacks.all[number].depth;
	}
}

static void c_fetch(struct bench_worker *self, u32 first, u32 count)
{
	struct bench *bench = self->bench;

	for (u32 i = first; i < first + count; i++) {
		u32 number = bench->stacks.order[i];

		self->bad += c_depot_fetch_into(bench->cs[number], self->out, 64) !=
			     bench->stacks.all[number].depth;
	}
}

static int compare(const void *left, const void *right)
{
	u64 l = *(const u64 *)left, r = *(const u64 *)right;

	return l < r ? -1 : l > r;
}

static u64 median(u64 *values)
{
	sort(values, BENCH_PASSES, sizeof(*values), compare, NULL);
	return values[BENCH_PASSES / 2];
}

/* Both depots in turns: `count` operations a pass, which begins `step` behind the last one. */
static void measure(struct seq_file *seq, struct bench *bench, const char *name,
		    bench_op ours, bench_op cs, u32 count, u32 step)
{
	u64 our_times[BENCH_PASSES], c_times[BENCH_PASSES], ratios[BENCH_PASSES];
	u32 pass;

	for (pass = 0; pass < BENCH_PASSES; pass++) {
		if (pass & 1)
			our_times[pass] = bench_timed(bench, ours, pass * step, count);
		c_times[pass] = bench_timed(bench, cs, pass * step, count);
		if (!(pass & 1))
			our_times[pass] = bench_timed(bench, ours, pass * step, count);
		ratios[pass] = our_times[pass] * 1000 / max(c_times[pass], 1ULL);
	}
	seq_printf(seq, "%s cpus=%u %s ours_" BENCH_UNIT "=%llu c_" BENCH_UNIT "=%llu ratio_permille=%llu\n",
		   bench->stacks.name, bench->cpus, name, median(our_times) / count,
		   median(c_times) / count, median(ratios));
}

static bool is_stored(struct bench *bench, u32 number)
{
	struct bench_stack *stack = &bench->stacks.all[number];
	unsigned long *out = bench->workers[0].out;
	u32 bytes = stack->depth * sizeof(*out);

	return sdc_fetch(&bench->own->depot, bench->ours[number], out, 64) == stack->depth &&
	       !memcmp(out, stack->frames, bytes) &&
	       c_depot_fetch_into(bench->cs[number], out, 64) == stack->depth &&
	       !memcmp(out, stack->frames, bytes);
}

static void check(struct seq_file *seq, struct bench *bench)
{
	struct sdc_stats stats;
	u64 lost = 0, bad = 0;
	u32 i;

	for (i = 0; i < bench->stacks.count; i++) {
		lost += !bench->ours[i] || !bench->cs[i];
		bad += !is_stored(bench, i);
	}
	for (i = 0; i < bench->cpus; i++)
		bad += bench->workers[i].bad;
	sdc_stats(&bench->own->depot, &stats);
	seq_printf(seq, "%s cpus=%u check lost=%llu bad=%llu our_nodes=%llu c_pools_kib=%lu c_table_kib=%lu\n",
		   bench->stacks.name, bench->cpus, lost, bad, stats.nodes,
		   POOL_KIB(c_depot_bytes()), POOL_KIB(c_depot_table_bytes()));
}

/* Other stacks, which the C depot must have as evictable ones from the start. */
static void prepare_references(struct bench *bench)
{
	for (u32 i = 0; i < bench->stacks.count; i++) {
		struct bench_stack *stack = &bench->stacks.all[i];

		stack->frames[0] ^= 1;
		bench->cs[i] = c_depot_save_flags(stack->frames, stack->depth, GFP_KERNEL,
						  STACK_DEPOT_FLAG_CAN_ALLOC |
						  STACK_DEPOT_FLAG_GET);
		bench->ours[i] = sdc_save(&bench->own->depot, stack->frames, stack->depth,
					  SDC_HOLD_REFERENCE);
	}
}

static void run(struct seq_file *seq, struct bench *bench)
{
	struct bench_stacks *stacks = &bench->stacks;
	u32 chunk = stacks->count / BENCH_PASSES;

	measure(seq, bench, "insert", our_insert, c_insert, chunk, chunk);
	measure(seq, bench, "hit", our_hit, c_hit, stacks->order_count, 0);
	measure(seq, bench, "fetch", our_fetch, c_fetch, stacks->order_count, 0);
	check(seq, bench);
	prepare_references(bench);
	measure(seq, bench, "get_put", our_get_put, c_get_put, stacks->order_count, 0);
	check(seq, bench);
	for (u32 i = 0; i < stacks->count; i++)
		c_depot_put(bench->cs[i]);
}

/* One run of everything: some stacks, on some CPUs, in a new depot of ours. */
static int run_once(struct seq_file *seq, int (*make)(struct bench_stacks *, u32), u32 cpus)
{
	struct sdc_config config = test_config(SZ_16M);
	struct bench *bench = kvzalloc(sizeof(*bench), GFP_KERNEL);
	/* The C depot keeps what it was given: each run has its own stacks. */
	int error = bench ? make(&bench->stacks, cpus) : -ENOMEM;

	if (error)
		goto free;
	error = -ENOMEM;
	bench->own = test_depot_new(&config);
	bench->ours = kvcalloc(bench->stacks.count, sizeof(u32), GFP_KERNEL);
	bench->cs = kvcalloc(bench->stacks.count, sizeof(u32), GFP_KERNEL);
	if (!bench->own || !bench->ours || !bench->cs || c_depot_init())
		goto free;
	timed = &bench->own->depot;
	error = bench_cpus_start(bench, cpus);
	if (!error)
		run(seq, bench);
	bench_cpus_stop(bench);
free:
	if (bench) {
		kvfree(bench->cs);
		kvfree(bench->ours);
		test_depot_free(bench->own);
		bench_stacks_free(&bench->stacks);
	}
	kvfree(bench);
	return error;
}

static int bench_show(struct seq_file *seq, void *v)
{
	u32 most = min(num_online_cpus(), (u32)BENCH_CPUS), cpus;
	int error = 0;

	for (cpus = 1; cpus <= most && !error; cpus++) {
		error = run_once(seq, bench_make_stacks, cpus);
		if (!error)
			error = run_once(seq, bench_read_stacks, cpus);
		if (error == -ENOENT) {
			seq_puts(seq, "recorded stacks: none in " BENCH_RECORDED "\n");
			error = 0;
		}
	}
	return error;
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
