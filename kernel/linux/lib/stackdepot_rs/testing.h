/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Stacks that a test can make again from a number, and depots of its own. */
#ifndef _STACKDEPOT_TESTING_H
#define _STACKDEPOT_TESTING_H

#include <linux/hash.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "internal.h"

#define TEST_DEPTH 17

/*
 * A stack of the shape that kernel stacks have: words of one 4-GiB window, outermost frames shared by
 * many. Different numbers below 2^32 give different stacks.
 */
static inline void nth_stack(u64 number, unsigned long *frames, u32 depth)
{
	u32 i;

	for (i = 0; i < depth; i++) {
		u64 seed = i < depth / 2 ? number : number >> 12;
		u32 low = hash_64(seed * depth + i, 28) << 2;

		/* No kernel text: an address in an interrupt entry would cut the stack. */
		frames[i] = 0xffffffffa0000000UL | low;
	}
	frames[0] = 0xffffffff00000000UL | (u32)number;
}

static inline bool is_nth_stack(u64 number, const unsigned long *frames, u32 depth)
{
	unsigned long expected[64];

	nth_stack(number, expected, depth);
	return !memcmp(expected, frames, depth * sizeof(*frames));
}

/* A depot of its own for a test; NULL without memory. */
struct test_depot {
	struct sdc_depot depot;
	struct sdc_config config;
	void *base;
};

static inline struct test_depot *test_depot_new(const struct sdc_config *config)
{
	struct test_depot *test = kzalloc(sizeof(*test), GFP_KERNEL);

	if (!test)
		return NULL;
	test->config = *config;
	test->base = kvzalloc(config->bytes, GFP_KERNEL);
	if (test->base && !sdc_create(&test->depot, test->base, config))
		return test;
	kvfree(test->base);
	kfree(test);
	return NULL;
}

static inline void test_depot_free(struct test_depot *test)
{
	if (test)
		kvfree(test->base);
	kfree(test);
}

static inline struct sdc_config test_config(u64 bytes)
{
	return (struct sdc_config){
		.bytes = bytes, .seed = 42, .payload_words = 1, .max_frames = 64,
		.lease_ticks = 17, .generation_limit = U32_MAX,
	};
}

#endif
