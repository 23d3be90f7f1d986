// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * KUnit suite stackdepot_rs_cpus: every context, interrupts that come between any two instructions of the
 * core, as many CPUs as there are.
 */

#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/stackdepot.h>
#ifdef CONFIG_X86_LOCAL_APIC
#include <asm/apic.h>
#include <asm/nmi.h>
#endif

#include "kunit.h"

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

static void save_in_interrupt(struct interrupter *self)
{
	u64 number = self->saves++ % 3000;
	u32 handle = save_nth(self->own, number, SDC_HOLD_REFERENCE);

	if (!handle)
		self->refused++;
	else if (!is_nth(self->own, handle, number))
		self->wrong++;
	if (handle)
		sdc_put(&self->own->depot, handle);
}

static enum hrtimer_restart interrupt(struct hrtimer *timer)
{
	save_in_interrupt(container_of(timer, struct interrupter, timer));
	hrtimer_forward_now(timer, ns_to_ktime(20 * NSEC_PER_USEC));
	return HRTIMER_RESTART;
}

/* What is interrupted: saves of the same stacks. */
static void save_often(struct interrupter *self, u64 *wrong, u64 *none)
{
	u64 i;
	u32 handle;

	for (i = 0; i < 200000; i++) {
		handle = save_nth(self->own, i % 3000, SDC_HOLD_REFERENCE);
		*none += !handle;
		*wrong += handle && !is_nth(self->own, handle, i % 3000);
		if (handle)
			sdc_put(&self->own->depot, handle);
	}
}

static void expect_all_right(struct kunit *test, struct interrupter *self, u64 wrong, u64 none)
{
	KUNIT_EXPECT_GT(test, self->saves, 0ULL);
	KUNIT_EXPECT_EQ(test, wrong + self->wrong, 0ULL);
	/* Refusals are allowed (an interrupted save may hold what the interrupt needs), but rare. */
	KUNIT_EXPECT_LE(test, none + self->refused, 200ULL);
	kunit_info(test, "%llu saves in interrupts, %llu refused\n",
		   self->saves, none + self->refused);
}

static void an_interrupt_may_come_between_any_two_instructions(struct kunit *test)
{
	struct test_depot *own = new_depot(test, SMALL);
	struct interrupter *self = kunit_kzalloc(test, sizeof(*self), GFP_KERNEL);
	u64 wrong = 0, none = 0;

	KUNIT_ASSERT_NOT_NULL(test, self);
	self->own = own;
	hrtimer_init(&self->timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	self->timer.function = interrupt;
	hrtimer_start(&self->timer, ns_to_ktime(NSEC_PER_USEC), HRTIMER_MODE_REL_HARD);
	save_often(self, &wrong, &none);
	hrtimer_cancel(&self->timer);
	expect_all_right(test, self, wrong, none);
	test_depot_free(own);
}

#ifdef CONFIG_X86_LOCAL_APIC
/* A real NMI, sent by another CPU, comes also where interrupts are off. */
static struct interrupter *nmi_target;
static int nmi_cpu;
static bool nmi_is_due, nmi_is_over;

static int on_nmi(unsigned int reason, struct pt_regs *regs)
{
	if (!xchg(&nmi_is_due, false))
		return NMI_DONE;
	save_in_interrupt(nmi_target);
	return NMI_HANDLED;
}

static int send_nmis(void *done)
{
	while (!READ_ONCE(nmi_is_over)) {
		WRITE_ONCE(nmi_is_due, true);
		__apic_send_IPI(nmi_cpu, NMI_VECTOR);
		while (READ_ONCE(nmi_is_due))
			cpu_relax();
		cond_resched();
	}
	complete(done);
	return 0;
}

static void an_nmi_may_come_between_any_two_instructions(struct kunit *test)
{
	struct interrupter *self = kunit_kzalloc(test, sizeof(*self), GFP_KERNEL);
	DECLARE_COMPLETION_ONSTACK(done);
	struct task_struct *sender;
	u64 wrong = 0, none = 0;

	KUNIT_ASSERT_NOT_NULL(test, self);
	if (num_online_cpus() < 2)
		kunit_skip(test, "one CPU");
	self->own = new_depot(test, SMALL);
	nmi_target = self;
	nmi_is_over = false;
	nmi_cpu = cpumask_first(cpu_online_mask);
	set_cpus_allowed_ptr(current, cpumask_of(nmi_cpu));
	KUNIT_ASSERT_EQ(test, register_nmi_handler(NMI_LOCAL, on_nmi, 0, "stackdepot_rs"), 0);
	sender = kthread_create(send_nmis, &done, "stackdepot_rs/nmi");
	KUNIT_ASSERT_FALSE(test, IS_ERR(sender));
	kthread_bind(sender, cpumask_nth(1, cpu_online_mask));
	wake_up_process(sender);
	while (!READ_ONCE(self->saves))
		cpu_relax();
	save_often(self, &wrong, &none);
	WRITE_ONCE(nmi_is_over, true);
	wait_for_completion(&done);
	unregister_nmi_handler(NMI_LOCAL, "stackdepot_rs");
	set_cpus_allowed_ptr(current, cpu_possible_mask);
	KUNIT_EXPECT_GT(test, self->saves, 1000ULL);
	expect_all_right(test, self, wrong, none);
	test_depot_free(self->own);
}
#endif

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

static struct kunit_case stackdepot_rs_cpus_cases[] = {
	KUNIT_CASE(saves_work_in_every_context),
	KUNIT_CASE(an_interrupt_may_come_between_any_two_instructions),
#ifdef CONFIG_X86_LOCAL_APIC
	KUNIT_CASE(an_nmi_may_come_between_any_two_instructions),
#endif
	KUNIT_CASE_SLOW(many_cpus_agree),
	KUNIT_CASE_SLOW(a_fetch_answers_its_own_stack_or_none),
	{}
};

static struct kunit_suite stackdepot_rs_cpus_suite = {
	.name = "stackdepot_rs_cpus",
	.test_cases = stackdepot_rs_cpus_cases,
};
kunit_test_suite(stackdepot_rs_cpus_suite);
