// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The CPUs of the comparison: who reads debugfs works on the first, threads on the others. All begin at
 * once, each with its share; the time is that until the last is done.
 */

#include <linux/cpumask.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/sched.h>
#include <linux/timex.h>

#include "bench.h"

static u64 now(void)
{
#ifdef CONFIG_UML
	return ktime_get_ns();
#else
	return get_cycles();
#endif
}

static void do_share(struct bench_worker *self)
{
	struct bench *bench = self->bench;
	u32 begin = bench->count * self->index / bench->cpus;
	u32 end = bench->count * (self->index + 1) / bench->cpus;

	bench->op(self, bench->first + begin, end - begin);
}

static int work(void *data)
{
	struct bench_worker *self = data;
	struct bench *bench = self->bench;

	for (;;) {
		wait_for_completion(&self->go);
		if (bench->is_stopping)
			break;
		atomic_inc(&bench->ready);
		while (!smp_load_acquire(&bench->is_on))
			cpu_relax();
		do_share(self);
		/* Pairs with bench_timed(). */
		smp_mb__before_atomic();
		atomic_inc(&bench->done);
	}
	complete(&self->stopped);
	return 0;
}

u64 bench_timed(struct bench *bench, bench_op op, u32 first, u32 count)
{
	u32 others = bench->cpus - 1, i;
	u64 start;

	bench->op = op;
	bench->first = first;
	bench->count = count;
	bench->is_on = false;
	atomic_set(&bench->ready, 0);
	atomic_set(&bench->done, 0);
	for (i = 1; i < bench->cpus; i++)
		complete(&bench->workers[i].go);
	while (atomic_read(&bench->ready) != others)
		cpu_relax();
	start = now();
	smp_store_release(&bench->is_on, true);
	do_share(&bench->workers[0]);
	while (atomic_read_acquire(&bench->done) != others)
		cpu_relax();
	start = now() - start;
	cond_resched();
	return start;
}

int bench_cpus_start(struct bench *bench, u32 cpus)
{
	u32 i;

	for (i = 0; i < cpus; i++) {
		struct bench_worker *worker = &bench->workers[i];

		worker->bench = bench;
		worker->index = i;
		init_completion(&worker->go);
		init_completion(&worker->stopped);
		if (i) {
			worker->task = kthread_create(work, worker, "stackdepot_bench/%u", i);
			if (IS_ERR(worker->task)) {
				worker->task = NULL;
				return -ENOMEM;
			}
			kthread_bind(worker->task, cpumask_nth(i, cpu_online_mask));
			wake_up_process(worker->task);
		}
		bench->cpus = i + 1;
	}
	return set_cpus_allowed_ptr(current, cpumask_of(cpumask_first(cpu_online_mask)));
}

void bench_cpus_stop(struct bench *bench)
{
	u32 i;

	set_cpus_allowed_ptr(current, cpu_possible_mask);
	bench->is_stopping = true;
	for (i = 1; i < bench->cpus; i++) {
		complete(&bench->workers[i].go);
		wait_for_completion(&bench->workers[i].stopped);
	}
}
