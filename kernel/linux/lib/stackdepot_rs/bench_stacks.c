// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The stacks of the comparison: made up ones in the shape of the upstream proposal, and ones that were
 * recorded from a kernel, asked for in the order in which they were recorded.
 */

#include <linux/kernel_read_file.h>
#include <linux/limits.h>
#include <linux/vmalloc.h>

#include "bench.h"

#define MADE		32768U
#define DEPTH		32U
#define SHARED		24U
/* Stacks that share their outer frames. */
#define SIBLINGS	16U
/* Between two copies of the recorded stacks: as long as no kernel's text. */
#define COPY_SHIFT	25

static int allocate(struct bench_stacks *stacks, u32 count, u32 frames, u32 order_count)
{
	stacks->all = kvcalloc(count, sizeof(*stacks->all), GFP_KERNEL);
	stacks->frames = kvcalloc(frames, sizeof(*stacks->frames), GFP_KERNEL);
	stacks->order = kvcalloc(order_count, sizeof(*stacks->order), GFP_KERNEL);
	stacks->count = count;
	stacks->order_count = order_count;
	return stacks->all && stacks->frames && stacks->order ? 0 : -ENOMEM;
}

void bench_stacks_free(struct bench_stacks *stacks)
{
	kvfree(stacks->order);
	kvfree(stacks->frames);
	kvfree(stacks->all);
}

/* 32768 stacks of 32 frames, 75 % of which are shared. */
int bench_make_stacks(struct bench_stacks *stacks, u32 salt)
{
	u32 number, i;

	stacks->name = "made";
	if (allocate(stacks, MADE, MADE * DEPTH, MADE))
		return -ENOMEM;
	for (number = 0; number < MADE; number++) {
		unsigned long *frames = &stacks->frames[number * DEPTH];

		stacks->all[number] = (struct bench_stack){ .frames = frames, .depth = DEPTH };
		stacks->order[number] = number;
		for (i = 0; i < DEPTH; i++) {
			u64 seed = i < DEPTH - SHARED ? number : MADE + number / SIBLINGS;
			u32 low = ((seed + salt) * DEPTH + i) * GOLDEN_RATIO_64 >> 38;

			frames[i] = 0xffffffffa0000000UL | low << 2;
		}
		frames[0] = 0xffffffff00000000UL | salt << 24 | number << 1;
	}
	return 0;
}

/*
 * The file: as words, the number of stacks, of their frames, of events, then for each stack its depth and
 * its frames, then for each event the number of its stack. The chunks that are inserted are copies of all
 * stacks, all frames moved on by a distance, so that each chunk has the stacks' own likeness.
 */
static int copy_recorded(struct bench_stacks *stacks, const u64 *words, u32 salt)
{
	u32 count = words[0], frames = words[1], events = words[2], copy, number, i;
	unsigned long *place;
	const u64 *word;

	if (allocate(stacks, count * BENCH_PASSES, frames * BENCH_PASSES, events))
		return -ENOMEM;
	place = stacks->frames;
	for (copy = 0; copy < BENCH_PASSES; copy++) {
		word = words + 3;
		for (number = 0; number < count; number++) {
			u32 depth = *word++;

			stacks->all[copy * count + number] =
				(struct bench_stack){ .frames = place, .depth = depth };
			for (i = 0; i < depth; i++)
				*place++ = *word++ - ((u64)copy << COPY_SHIFT) + (salt << 1);
		}
	}
	for (i = 0; i < events; i++)
		stacks->order[i] = *word++;
	return 0;
}

int bench_read_stacks(struct bench_stacks *stacks, u32 salt)
{
	void *words = NULL;
	ssize_t bytes;
	int error;

	stacks->name = "recorded";
	bytes = kernel_read_file_from_path(BENCH_RECORDED, 0, &words, INT_MAX, NULL,
					   READING_UNKNOWN);
	if (bytes < 0)
		return bytes;
	error = copy_recorded(stacks, words, salt);
	vfree(words);
	return error;
}
