/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What both KUnit suites do with depots of their own. */
#ifndef _STACKDEPOT_KUNIT_H
#define _STACKDEPOT_KUNIT_H

#include <kunit/test.h>

#include "testing.h"

#define SMALL SZ_256K

static inline struct test_depot *new_depot(struct kunit *test, u64 bytes)
{
	struct sdc_config config = test_config(bytes);
	struct test_depot *own = test_depot_new(&config);

	KUNIT_ASSERT_NOT_NULL(test, own);
	return own;
}

static inline u32 save_nth(struct test_depot *own, u64 number, u32 hold)
{
	unsigned long frames[TEST_DEPTH];

	nth_stack(number, frames, TEST_DEPTH);
	return sdc_save(&own->depot, frames, TEST_DEPTH, hold);
}

/* Whether the handle names the stack of that number; false also when it is gone. */
static inline bool is_nth(struct test_depot *own, u32 handle, u64 number)
{
	unsigned long frames[64];

	return sdc_fetch(&own->depot, handle, frames, 64) == TEST_DEPTH &&
	       is_nth_stack(number, frames, TEST_DEPTH);
}

static inline struct sdc_stats stats_of(struct test_depot *own)
{
	struct sdc_stats stats;

	sdc_stats(&own->depot, &stats);
	return stats;
}

static inline u64 refused(const struct sdc_stats *stats)
{
	return stats->full + stats->contended + stats->crowded + stats->saturated;
}

#endif
