// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * KUnit suite stackdepot_rs: what the depot promises, on depots of the tests' own, and the C API on
 * the kernel's.
 *
 * Tests of concurrency run on as many CPUs as there are, and against a timer interrupt, which may
 * come between any two instructions of the core.
 */

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/preempt.h>
#include <linux/spinlock.h>
#include <linux/stackdepot.h>
#include <linux/stacktrace.h>

#include "testing.h"

#define SMALL SZ_256K

static struct test_depot *new_depot(struct kunit *test, u64 bytes)
{
	struct sdc_config config = test_config(bytes);
	struct test_depot *own = test_depot_new(&config);

	KUNIT_ASSERT_NOT_NULL(test, own);
	return own;
}

static u32 save_nth(struct test_depot *own, u64 number, u32 hold)
{
	unsigned long frames[TEST_DEPTH];

	nth_stack(number, frames, TEST_DEPTH);
	return sdc_save(&own->depot, frames, TEST_DEPTH, hold);
}

/* Whether the handle names the stack of that number; false also when it is gone. */
static bool is_nth(struct test_depot *own, u32 handle, u64 number)
{
	unsigned long frames[64];

	return sdc_fetch(&own->depot, handle, frames, 64) == TEST_DEPTH &&
	       is_nth_stack(number, frames, TEST_DEPTH);
}

static struct sdc_stats stats_of(struct test_depot *own)
{
	struct sdc_stats stats;

	sdc_stats(&own->depot, &stats);
	return stats;
}

static u64 refused(const struct sdc_stats *stats)
{
	return stats->full + stats->contended + stats->crowded + stats->saturated;
}

static void round_trip(struct kunit *test)
{
	struct test_depot *own = new_depot(test, SMALL);
	unsigned long in[64], out[64];
	u32 depth, handle, i;

	for (depth = 1; depth <= 64; depth++) {
		nth_stack(depth, in, depth);
		handle = sdc_save(&own->depot, in, depth, SDC_HOLD_FOREVER);
		KUNIT_EXPECT_NE(test, handle, 0u);
		KUNIT_EXPECT_EQ(test, sdc_fetch(&own->depot, handle, out, 64), depth);
		for (i = 0; i < depth; i++)
			KUNIT_EXPECT_EQ(test, in[i], out[i]);
	}
	test_depot_free(own);
}

static void equal_stacks_have_one_handle(struct kunit *test)
{
	struct test_depot *own = new_depot(test, SMALL);
	u32 handle = save_nth(own, 1, SDC_HOLD_FOREVER);
	u64 i;

	for (i = 2; i < 100; i++)
		KUNIT_EXPECT_NE(test, save_nth(own, i, SDC_HOLD_FOREVER), handle);
	for (i = 0; i < 100; i++)
		KUNIT_EXPECT_EQ(test, save_nth(own, 1, SDC_HOLD_FOREVER), handle);
	KUNIT_EXPECT_EQ(test, stats_of(own).new_stacks, 99ULL);
	test_depot_free(own);
}

static void long_stacks_are_cut_and_found_again(struct kunit *test)
{
	struct test_depot *own = new_depot(test, SMALL);
	unsigned long *in = kunit_kzalloc(test, 200 * sizeof(*in), GFP_KERNEL);
	unsigned long out[64];
	u32 handle, i;

	KUNIT_ASSERT_NOT_NULL(test, in);
	for (i = 0; i < 200; i++)
		in[i] = 0xffffffff81000000UL + i * 16;
	handle = sdc_save(&own->depot, in, 200, SDC_HOLD_FOREVER);
	KUNIT_EXPECT_NE(test, handle, 0u);
	KUNIT_EXPECT_EQ(test, sdc_save(&own->depot, in, 200, SDC_HOLD_FOREVER), handle);
	KUNIT_EXPECT_NE(test, sdc_save(&own->depot, in, 64, SDC_HOLD_FOREVER), handle);
	KUNIT_EXPECT_EQ(test, sdc_fetch(&own->depot, handle, out, 64), 64u);
	KUNIT_EXPECT_EQ(test, memcmp(in, out, sizeof(out)), 0);
	KUNIT_EXPECT_EQ(test, stats_of(own).truncated, 2ULL);
	test_depot_free(own);
}

/* KMSAN saves words that are no addresses. */
static void any_word_comes_back(struct kunit *test)
{
	struct test_depot *own = new_depot(test, SMALL);
	unsigned long in[24], out[64];
	u32 handle, round, i;

	for (round = 0; round < 50; round++) {
		for (i = 0; i < ARRAY_SIZE(in); i++)
			in[i] = (round * 64 + i + 1) * GOLDEN_RATIO_64;
		in[round % 24] = round & 1 ? 0 : ~0UL;
		handle = sdc_save(&own->depot, in, 24, SDC_HOLD_FOREVER);
		KUNIT_EXPECT_NE(test, handle, 0u);
		KUNIT_EXPECT_EQ(test, sdc_fetch(&own->depot, handle, out, 64), 24u);
		KUNIT_EXPECT_EQ(test, memcmp(in, out, sizeof(in)), 0);
	}
	KUNIT_EXPECT_GT(test, stats_of(own).wide_nodes, 0ULL);
	test_depot_free(own);
}

/* Stacks are filled up at their outer end by words that say how many they are. */
static void frames_are_told_from_what_fills_up(struct kunit *test)
{
	static const u32 depths[] = { 1, 9, 10, 11, 20, 55, 60, 64, 65 };
	struct test_depot *own = new_depot(test, SMALL);
	unsigned long in[65], out[70];
	u32 i, low, depth, handle, count = 0;

	for (i = 0; i < ARRAY_SIZE(depths); i++) {
		for (low = 0; low < 40; low++) {
			depth = depths[i];
			nth_stack(i, in, depth);
			in[depth - 1] = 0xffffffff00000000UL | low;
			handle = sdc_save(&own->depot, in, depth, SDC_HOLD_FOREVER);
			KUNIT_EXPECT_NE(test, handle, 0u);
			/* A longer stack is cut: without its last word they are all one. */
			count += depth <= 64 || !low;
			KUNIT_EXPECT_EQ(test, stats_of(own).new_stacks, (u64)count);
			depth = min(depth, 64u);
			KUNIT_EXPECT_EQ(test, sdc_fetch(&own->depot, handle, out, 70), depth);
			KUNIT_EXPECT_EQ(test, memcmp(in, out, depth * sizeof(*in)), 0);
			memset(out, 0xa5, sizeof(out));
			KUNIT_EXPECT_EQ(test, sdc_fetch(&own->depot, handle, out, depth), depth);
			KUNIT_EXPECT_EQ(test, memcmp(in, out, depth * sizeof(*in)), 0);
			KUNIT_EXPECT_EQ(test, out[depth], 0xa5a5a5a5a5a5a5a5UL);
		}
	}
	test_depot_free(own);
}

static void a_reference_holds_until_its_put(struct kunit *test)
{
	struct test_depot *own = new_depot(test, SMALL);
	u32 handle = save_nth(own, 1, SDC_HOLD_REFERENCE);
	u64 i;

	KUNIT_EXPECT_EQ(test, save_nth(own, 1, SDC_HOLD_REFERENCE), handle);
	sdc_put(&own->depot, handle);
	for (i = 2; i < 20000; i++)
		KUNIT_EXPECT_NE(test, save_nth(own, i, SDC_HOLD_NONE), 0u);
	KUNIT_EXPECT_TRUE(test, is_nth(own, handle, 1));
	sdc_put(&own->depot, handle);
	for (i = 20000; i < 40000; i++)
		KUNIT_EXPECT_NE(test, save_nth(own, i, SDC_HOLD_NONE), 0u);
	KUNIT_EXPECT_FALSE(test, is_nth(own, handle, 1));
	KUNIT_EXPECT_EQ(test, stats_of(own).stale_puts, 0ULL);
	sdc_put(&own->depot, handle);
	KUNIT_EXPECT_EQ(test, stats_of(own).stale_puts, 1ULL);
	test_depot_free(own);
}

static void a_lease_holds_until_the_clock_passed(struct kunit *test)
{
	struct test_depot *own = new_depot(test, SMALL);
	u32 handle = save_nth(own, 1, SDC_HOLD_LEASE);
	u64 i;

	sdc_advance(&own->depot, own->config.lease_ticks);
	for (i = 2; i < 20000; i++)
		save_nth(own, i, SDC_HOLD_NONE);
	KUNIT_EXPECT_TRUE(test, is_nth(own, handle, 1));
	sdc_advance(&own->depot, 1);
	for (i = 20000; i < 40000; i++)
		save_nth(own, i, SDC_HOLD_NONE);
	KUNIT_EXPECT_FALSE(test, is_nth(own, handle, 1));
	test_depot_free(own);
}

static void what_is_saved_plainly_stays_for_ever(struct kunit *test)
{
	struct test_depot *own = new_depot(test, SMALL);
	u32 handles[100];
	u64 i;

	for (i = 0; i < 100; i++)
		handles[i] = save_nth(own, i, SDC_HOLD_FOREVER);
	sdc_put(&own->depot, handles[7]);
	for (i = 100; i < 30000; i++)
		save_nth(own, i, SDC_HOLD_NONE);
	for (i = 0; i < 100; i++)
		KUNIT_EXPECT_TRUE(test, is_nth(own, handles[i], i));
	KUNIT_EXPECT_GT(test, stats_of(own).evicted_stacks, 10000ULL);
	test_depot_free(own);
}

static void nothing_is_written_beyond_the_bound(struct kunit *test)
{
	struct sdc_config config = test_config(SMALL);
	struct sdc_depot *depot = kunit_kzalloc(test, sizeof(*depot), GFP_KERNEL);
	u8 *base = kvzalloc(SMALL + 2 * PAGE_SIZE, GFP_KERNEL);
	unsigned long frames[TEST_DEPTH];
	struct sdc_stats stats;
	u64 i;

	KUNIT_ASSERT_NOT_NULL(test, depot);
	KUNIT_ASSERT_NOT_NULL(test, base);
	memset(base, 0xa5, PAGE_SIZE);
	memset(base + PAGE_SIZE + SMALL, 0xa5, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, sdc_create(depot, base + PAGE_SIZE, &config), 0);
	for (i = 0; i < 50000; i++) {
		nth_stack(i, frames, TEST_DEPTH);
		KUNIT_EXPECT_NE(test, sdc_save(depot, frames, TEST_DEPTH, SDC_HOLD_NONE), 0u);
	}
	sdc_stats(depot, &stats);
	KUNIT_EXPECT_LE(test, stats.region_bytes, (u64)SMALL);
	KUNIT_EXPECT_EQ(test, stats.nodes, stats.slots);
	KUNIT_EXPECT_PTR_EQ(test, memchr_inv(base, 0xa5, PAGE_SIZE), NULL);
	KUNIT_EXPECT_PTR_EQ(test, memchr_inv(base + PAGE_SIZE + SMALL, 0xa5, PAGE_SIZE), NULL);
	kvfree(base);
}

static void a_full_depot_refuses_and_counts(struct kunit *test)
{
	struct test_depot *own = new_depot(test, SMALL);
	struct sdc_stats stats;
	u64 i, none = 0;

	for (i = 0; i < 10000; i++)
		none += !save_nth(own, i, SDC_HOLD_FOREVER);
	stats = stats_of(own);
	KUNIT_EXPECT_GT(test, none, 0ULL);
	KUNIT_EXPECT_EQ(test, refused(&stats), none);
	KUNIT_EXPECT_EQ(test, stats.evicted_stacks, 0ULL);
	for (i = 0; i < 100; i++)
		KUNIT_EXPECT_TRUE(test, is_nth(own, save_nth(own, i, SDC_HOLD_FOREVER), i));
	test_depot_free(own);
}

/* Handles that outlived their stack: never another stack by the lasting name, rarely by the handle. */
static void stale_handles_are_recognised(struct kunit *test)
{
	enum { COUNT = 2000 };
	struct test_depot *own = new_depot(test, SMALL);
	u32 *handles = kunit_kcalloc(test, COUNT, sizeof(*handles), GFP_KERNEL);
	u64 *weak = kunit_kcalloc(test, COUNT, sizeof(*weak), GFP_KERNEL);
	unsigned long frames[64];
	u64 i, wrong = 0;
	u32 length;

	KUNIT_ASSERT_NOT_NULL(test, handles);
	KUNIT_ASSERT_NOT_NULL(test, weak);
	for (i = 0; i < COUNT; i++) {
		handles[i] = save_nth(own, i, SDC_HOLD_REFERENCE);
		weak[i] = sdc_weak(&own->depot, handles[i]);
		sdc_put(&own->depot, handles[i]);
	}
	for (i = COUNT; i < COUNT + 60000; i++)
		save_nth(own, i, SDC_HOLD_NONE);
	for (i = 0; i < COUNT; i++) {
		length = sdc_fetch_weak(&own->depot, weak[i], frames, 64);
		KUNIT_EXPECT_EQ(test, length, 0u);
		length = sdc_fetch(&own->depot, handles[i], frames, 64);
		wrong += length && !is_nth_stack(i, frames, TEST_DEPTH);
	}
	/* 15 bits of the generation are in the handle of so small a depot. */
	KUNIT_EXPECT_LE(test, wrong, 2ULL);
	test_depot_free(own);
}

static void counts_belong_to_their_stacks(struct kunit *test)
{
	struct test_depot *own = new_depot(test, SMALL);
	u32 handles[50], cursor = 0, handle, seen = 0;
	u64 i, count, sum = 0;

	for (i = 0; i < 50; i++) {
		handles[i] = save_nth(own, i, SDC_HOLD_FOREVER);
		sdc_add(&own->depot, handles[i], i + 10);
		sdc_add(&own->depot, handles[i], -10ULL);
	}
	for (i = 0; i < 50; i++)
		KUNIT_EXPECT_EQ(test, sdc_payload(&own->depot, handles[i]), i);
	while ((handle = sdc_next(&own->depot, &cursor, &count))) {
		KUNIT_EXPECT_TRUE(test, is_nth(own, handle, count));
		sum += count;
		seen++;
	}
	KUNIT_EXPECT_EQ(test, seen, 50u);
	KUNIT_EXPECT_EQ(test, sum, 49 * 50 / 2ULL);
	test_depot_free(own);
}

/* As in an NMI under a raw spinlock: no lock may be taken, nothing allocated. */
static void saves_work_in_every_context(struct kunit *test)
{
	struct test_depot *own = new_depot(test, SMALL);
	unsigned long frames[TEST_DEPTH], flags;
	DEFINE_RAW_SPINLOCK(lock);
	bool is_nmi, is_right;
	u32 handle;

	raw_spin_lock_init(&lock);
	nth_stack(1, frames, TEST_DEPTH);
	raw_spin_lock_irqsave(&lock, flags);
	preempt_count_add(NMI_OFFSET + HARDIRQ_OFFSET);
	is_nmi = in_nmi();
	handle = sdc_save(&own->depot, frames, TEST_DEPTH, SDC_HOLD_REFERENCE);
	is_right = is_nth(own, handle, 1);
	sdc_put(&own->depot, handle);
	handle = stack_depot_save_flags(frames, TEST_DEPTH, 0, 0);
	preempt_count_sub(NMI_OFFSET + HARDIRQ_OFFSET);
	raw_spin_unlock_irqrestore(&lock, flags);
	KUNIT_EXPECT_TRUE(test, is_nmi);
	KUNIT_EXPECT_TRUE(test, is_right);
	KUNIT_EXPECT_NE(test, handle, 0u);
	test_depot_free(own);
}

/* A timer interrupt that saves, holds and reads in the depot that it interrupted. */
struct interrupter {
	struct hrtimer timer;
	struct test_depot *own;
	u64 saves;
	u64 refused;
	u64 wrong;
};

static enum hrtimer_restart interrupt(struct hrtimer *timer)
{
	struct interrupter *self = container_of(timer, struct interrupter, timer);
	u64 number = self->saves++ % 3000;
	u32 handle = save_nth(self->own, number, SDC_HOLD_REFERENCE);

	if (!handle)
		self->refused++;
	else if (!is_nth(self->own, handle, number))
		self->wrong++;
	if (handle)
		sdc_put(&self->own->depot, handle);
	hrtimer_forward_now(timer, ns_to_ktime(20 * NSEC_PER_USEC));
	return HRTIMER_RESTART;
}

static void an_interrupt_may_come_between_any_two_instructions(struct kunit *test)
{
	struct test_depot *own = new_depot(test, SMALL);
	struct interrupter *self = kunit_kzalloc(test, sizeof(*self), GFP_KERNEL);
	u64 wrong = 0, none = 0, i;
	u32 handle;

	KUNIT_ASSERT_NOT_NULL(test, self);
	self->own = own;
	hrtimer_init(&self->timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	self->timer.function = interrupt;
	hrtimer_start(&self->timer, ns_to_ktime(NSEC_PER_USEC), HRTIMER_MODE_REL_HARD);
	for (i = 0; i < 200000; i++) {
		handle = save_nth(own, i % 3000, SDC_HOLD_REFERENCE);
		none += !handle;
		wrong += handle && !is_nth(own, handle, i % 3000);
		if (handle)
			sdc_put(&own->depot, handle);
	}
	hrtimer_cancel(&self->timer);
	KUNIT_EXPECT_GT(test, self->saves, 0ULL);
	KUNIT_EXPECT_EQ(test, wrong + self->wrong, 0ULL);
	/* Refusals are allowed (an interrupted save may hold what the interrupt needs), but rare. */
	KUNIT_EXPECT_LE(test, none + self->refused, 200ULL);
	kunit_info(test, "%llu saves in interrupts, %llu refused\n",
		   self->saves, none + self->refused);
	test_depot_free(own);
}

/* One thread for each CPU. */
struct worker {
	struct test_depot *own;
	struct task_struct *task;
	struct completion done;
	u64 wrong;
	u64 refused;
	u32 index;
};

enum { WORK_ROUNDS = 100000, WORK_STACKS = 4000 };

static int work(void *data)
{
	struct worker *self = data;
	u64 number, i;
	u32 handle;

	for (i = 0; i < WORK_ROUNDS; i++) {
		number = hash_64(i * 16 + self->index, 32) % WORK_STACKS;
		handle = save_nth(self->own, number, SDC_HOLD_REFERENCE);
		self->refused += !handle;
		self->wrong += handle && !is_nth(self->own, handle, number);
		if (handle)
			sdc_put(&self->own->depot, handle);
		if (!(i & 255))
			cond_resched();
	}
	complete(&self->done);
	return 0;
}

static void run_workers(struct kunit *test, struct test_depot *own,
			struct worker *workers, u32 count)
{
	u32 i;

	for (i = 0; i < count; i++) {
		workers[i] = (struct worker){ .own = own, .index = i };
		init_completion(&workers[i].done);
		workers[i].task = kthread_create(work, &workers[i], "stackdepot_rs/%u", i);
		KUNIT_ASSERT_FALSE(test, IS_ERR(workers[i].task));
		kthread_bind(workers[i].task, cpumask_nth(i % num_online_cpus(), cpu_online_mask));
		wake_up_process(workers[i].task);
	}
	for (i = 0; i < count; i++)
		wait_for_completion(&workers[i].done);
}

static void many_cpus_agree(struct kunit *test)
{
	u32 count = max(2u, num_online_cpus()), i, seen = 0, cursor = 0;
	struct worker *workers = kunit_kcalloc(test, count, sizeof(*workers), GFP_KERNEL);
	/* Room for some of the stacks only, then for all of them. */
	struct test_depot *tight = new_depot(test, SMALL), *roomy = new_depot(test, SZ_2M);
	u64 payload;

	KUNIT_ASSERT_NOT_NULL(test, workers);
	run_workers(test, tight, workers, count);
	for (i = 0; i < count; i++) {
		KUNIT_EXPECT_EQ(test, workers[i].wrong, 0ULL);
		KUNIT_EXPECT_LE(test, workers[i].refused, WORK_ROUNDS / 1000ULL);
	}
	KUNIT_EXPECT_GT(test, stats_of(tight).evicted_stacks, 1000ULL);
	run_workers(test, roomy, workers, count);
	for (i = 0; i < count; i++) {
		KUNIT_EXPECT_EQ(test, workers[i].wrong, 0ULL);
		KUNIT_EXPECT_EQ(test, workers[i].refused, 0ULL);
	}
	/* Equal stacks were saved once, whoever came first. */
	while (sdc_next(&roomy->depot, &cursor, &payload))
		seen++;
	KUNIT_EXPECT_EQ(test, seen, (u32)WORK_STACKS);
	test_depot_free(tight);
	test_depot_free(roomy);
}

struct evicter {
	struct test_depot *own;
	struct completion done;
	bool stop;
};

static int evict(void *data)
{
	struct evicter *self = data;
	u64 number = 1000000;

	while (!READ_ONCE(self->stop)) {
		save_nth(self->own, number++, SDC_HOLD_NONE);
		if (!(number & 63))
			cond_resched();
	}
	complete(&self->done);
	return 0;
}

static void a_fetch_answers_its_own_stack_or_none(struct kunit *test)
{
	enum { COUNT = 2000, ROUNDS = 200000 };
	struct evicter evicter = { .own = new_depot(test, SMALL) };
	struct test_depot *own = evicter.own;
	u64 *weak = kunit_kcalloc(test, COUNT, sizeof(*weak), GFP_KERNEL);
	u64 round, number, gone = 0, wrong = 0;
	unsigned long frames[64];
	struct task_struct *task;
	u32 handle;

	KUNIT_ASSERT_NOT_NULL(test, weak);
	init_completion(&evicter.done);
	task = kthread_run(evict, &evicter, "stackdepot_rs/evict");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	for (round = 0; round < ROUNDS; round++) {
		number = hash_64(round + 1, 32) % COUNT;
		if (sdc_fetch_weak(&own->depot, weak[number], frames, 64)) {
			wrong += !is_nth_stack(number, frames, TEST_DEPTH);
		} else {
			/* Not saved yet, or evicted: from now on under another name. */
			gone += weak[number] != 0;
			handle = save_nth(own, number, SDC_HOLD_REFERENCE);
			weak[number] = sdc_weak(&own->depot, handle);
			sdc_put(&own->depot, handle);
		}
		if (!(round & 63))
			cond_resched();
	}
	WRITE_ONCE(evicter.stop, true);
	wait_for_completion(&evicter.done);
	KUNIT_EXPECT_EQ(test, wrong, 0ULL);
	KUNIT_EXPECT_GT(test, gone, 1000ULL);
	test_depot_free(own);
}

static void the_c_api_keeps_its_contracts(struct kunit *test)
{
	unsigned long in[TEST_DEPTH], out[TEST_DEPTH], *pointed;
	depot_stack_handle_t handle, marked;
	char text[64];
	u32 i;

	KUNIT_ASSERT_NOT_NULL(test, stack_depot_core());
	nth_stack(77, in, TEST_DEPTH);
	handle = stack_depot_save(in, TEST_DEPTH, GFP_KERNEL);
	KUNIT_EXPECT_NE(test, handle, 0u);
	KUNIT_EXPECT_EQ(test, stack_depot_save_flags(in, TEST_DEPTH, 0, 0), handle);
	KUNIT_EXPECT_EQ(test, stack_depot_save(in, 0, GFP_KERNEL), 0u);
	KUNIT_EXPECT_EQ(test, stack_depot_fetch_into(handle, out, TEST_DEPTH), TEST_DEPTH);
	KUNIT_EXPECT_EQ(test, memcmp(in, out, sizeof(in)), 0);
	KUNIT_EXPECT_EQ(test, stack_depot_fetch_into(handle, out, 3), 3u);
	KUNIT_EXPECT_EQ(test, stack_depot_fetch_into(0, out, 3), 0u);
	KUNIT_EXPECT_EQ(test, stack_depot_fetch(handle, &pointed), TEST_DEPTH);
	KUNIT_EXPECT_EQ(test, memcmp(in, pointed, sizeof(in)), 0);
	KUNIT_EXPECT_EQ(test, stack_depot_fetch(0, &pointed), 0u);
	KUNIT_EXPECT_PTR_EQ(test, pointed, NULL);
	KUNIT_EXPECT_GT(test, stack_depot_snprint(handle, text, sizeof(text), 0), 0);
	for (i = 0; i < 1 << STACK_DEPOT_EXTRA_BITS; i++) {
		marked = stack_depot_set_extra_bits(handle, i);
		KUNIT_EXPECT_EQ(test, stack_depot_get_extra_bits(marked), i);
		KUNIT_EXPECT_EQ(test, stack_depot_set_extra_bits(marked, 0), handle);
		KUNIT_EXPECT_EQ(test, stack_depot_fetch_into(marked, out, TEST_DEPTH), TEST_DEPTH);
	}
	KUNIT_EXPECT_EQ(test, stack_depot_set_extra_bits(0, 5), 0u);
	handle = stack_depot_save_flags(in, TEST_DEPTH, 0, STACK_DEPOT_FLAG_GET);
	stack_depot_put(handle);
	stack_depot_put(0);
	KUNIT_EXPECT_EQ(test, stack_depot_fetch_into(handle, out, TEST_DEPTH), TEST_DEPTH);
}

static struct kunit_case stackdepot_rs_cases[] = {
	KUNIT_CASE(round_trip),
	KUNIT_CASE(equal_stacks_have_one_handle),
	KUNIT_CASE(long_stacks_are_cut_and_found_again),
	KUNIT_CASE(any_word_comes_back),
	KUNIT_CASE(frames_are_told_from_what_fills_up),
	KUNIT_CASE(a_reference_holds_until_its_put),
	KUNIT_CASE(a_lease_holds_until_the_clock_passed),
	KUNIT_CASE(what_is_saved_plainly_stays_for_ever),
	KUNIT_CASE(nothing_is_written_beyond_the_bound),
	KUNIT_CASE(a_full_depot_refuses_and_counts),
	KUNIT_CASE(stale_handles_are_recognised),
	KUNIT_CASE(counts_belong_to_their_stacks),
	KUNIT_CASE(saves_work_in_every_context),
	KUNIT_CASE(an_interrupt_may_come_between_any_two_instructions),
	KUNIT_CASE_SLOW(many_cpus_agree),
	KUNIT_CASE_SLOW(a_fetch_answers_its_own_stack_or_none),
	KUNIT_CASE(the_c_api_keeps_its_contracts),
	{}
};

static struct kunit_suite stackdepot_rs_suite = {
	.name = "stackdepot_rs",
	.test_cases = stackdepot_rs_cases,
};
kunit_test_suite(stackdepot_rs_suite);
