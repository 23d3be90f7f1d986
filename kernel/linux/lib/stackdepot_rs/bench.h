/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the files of the comparison share. */
#ifndef _STACKDEPOT_BENCH_H
#define _STACKDEPOT_BENCH_H

#include <linux/completion.h>

#include "testing.h"

#define BENCH_PASSES	32U
/* Most CPUs at once. */
#define BENCH_CPUS	2U
/* Stacks that were recorded from a kernel, if the initramfs has them. */
#define BENCH_RECORDED	"/stacks.bin"

/*
 * Emulated machines often have no clock finer than a tick of 4 ms, because a busy host spoils the
 * calibration of the time-stamp counter; the counter itself is good.
 */
#ifdef CONFIG_UML
#define BENCH_UNIT "ns"
#else
#define BENCH_UNIT "cycles"
#endif

struct bench_stack {
	unsigned long *frames;
	u32 depth;
};

/* Different stacks, and in which order those of a pass are asked for. */
struct bench_stacks {
	const char *name;
	struct bench_stack *all;
	unsigned long *frames;
	u32 *order;
	u32 count;		/* a multiple of BENCH_PASSES */
	u32 order_count;
};

struct bench;

/* What a CPU of the comparison has. */
struct bench_worker {
	struct bench *bench;
	struct task_struct *task;
	struct completion go;
	struct completion stopped;
	unsigned long out[64];
	u64 bad;
	u32 index;
};

/* One operation over some of the stacks, on one of the depots. */
typedef void (*bench_op)(struct bench_worker *self, u32 first, u32 count);

/* Everything that a run needs. */
struct bench {
	struct test_depot *own;
	struct bench_stacks stacks;
	u32 *ours;
	u32 *cs;
	u32 cpus;
	struct bench_worker workers[BENCH_CPUS];
	/* What the CPUs do now. */
	bench_op op;
	u32 first;
	u32 count;
	bool is_stopping;
	bool is_on;
	atomic_t ready;
	atomic_t done;
};

/*
 * 0, -ENOMEM, -ENOENT. Stacks of one `salt` (1 to BENCH_CPUS) differ from those of another. The first are
 * made up, in the shape of the upstream proposal; the others are recorded ones.
 */
int bench_make_stacks(struct bench_stacks *stacks, u32 salt);
int bench_read_stacks(struct bench_stacks *stacks, u32 salt);
void bench_stacks_free(struct bench_stacks *stacks);

int bench_cpus_start(struct bench *bench, u32 cpus);
void bench_cpus_stop(struct bench *bench);
/* Runs an operation on all CPUs at once; answers the time. */
u64 bench_timed(struct bench *bench, bench_op op, u32 first, u32 count);

#endif
