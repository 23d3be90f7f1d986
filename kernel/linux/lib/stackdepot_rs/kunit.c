// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * KUnit suite stackdepot_rs: what the depot promises, on depots of the tests' own, and the C API on
 * the kernel's. Neighbour: kunit_cpus.c, interrupts and many CPUs.
 */

#include <linux/stackdepot.h>
#include <linux/stacktrace.h>

#include "kunit.h"

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
	KUNIT_CASE(the_c_api_keeps_its_contracts),
	{}
};

static struct kunit_suite stackdepot_rs_suite = {
	.name = "stackdepot_rs",
	.test_cases = stackdepot_rs_cases,
};
kunit_test_suite(stackdepot_rs_suite);
