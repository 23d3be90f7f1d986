/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * As much of a kernel as lib/stackdepot.c of Linux 6.12 needs in a process: every header that it
 * includes and that is not unpacked beside it is made to include this one.
 *
 * Where the kernel does more (grace periods, interrupts switched off, filter_irq_stacks), this does
 * nothing, in favour of the peer. Reference counts and the lock cost what they cost in the kernel.
 */
#pragma once

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned int gfp_t;

#define CONFIG_STACKDEPOT 1
#define CONFIG_STACKDEPOT_MAX_FRAMES 64
#define IS_ENABLED(option) 0
#define PAGE_SHIFT 12
#define GFP_KERNEL 0
#define HASH_EARLY 0
#define STACK_DEPOT_POISON ((void *)0x390)

#define __init
#define __initdata
#define __must_check
#define fallthrough __attribute__((fallthrough))
#define EXPORT_SYMBOL(name)
#define EXPORT_SYMBOL_GPL(name)
#define early_param(name, function) static void *parameter __attribute__((unused)) = function
#define late_initcall(function) static void *initcall __attribute__((unused)) = function
#define DEFINE_SHOW_ATTRIBUTE(name) static void *name##_fops __attribute__((unused)) = name##_show

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define WARN_ON(condition) ({ bool warned = (condition); unlikely(warned); })
#define WARN_ON_ONCE WARN_ON
#define WARN(condition, ...) WARN_ON(condition)
#define WARN_ONCE(condition, ...) ((void)(condition))
#define pr_info(...) ((void)0)
#define pr_err(...) ((void)0)
#define lockdep_assert_held(lock) ((void)0)
#define lockdep_assert_not_held(lock) ((void)0)
#define ASSERT_EXCLUSIVE_WRITER(word) ((void)0)
#define kmsan_unpoison_memory(start, bytes) ((void)0)
#define printk_deferred_enter() ((void)0)
#define printk_deferred_exit() ((void)0)
#define in_nmi() false
#define kasan_enabled() true
#define data_race(expression) (expression)
#define READ_ONCE(word) (*(const volatile __typeof__(word) *)&(word))
#define WRITE_ONCE(word, value) (*(volatile __typeof__(word) *)&(word) = (value))

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define ALIGN(number, step) (((number) + (step) - 1) & ~((__typeof__(number))(step) - 1))
#define array_size(count, bytes) ((size_t)(count) * (bytes))
#define flex_array_size(object, member, count) array_size(count, sizeof((object)->member[0]))
#define container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

static inline u32 rol32(u32 word, unsigned int shift)
{
	return word << (shift & 31) | word >> (-shift & 31);
}

static inline u32 __get_unaligned_cpu32(const void *from)
{
	u32 word;

	memcpy(&word, from, sizeof(word));
	return word;
}

static inline unsigned long roundup_pow_of_two(unsigned long number)
{
	return number <= 1 ? 1 : 1UL << (64 - __builtin_clzl(number - 1));
}

/* Lists. */
struct list_head {
	struct list_head *next, *prev;
};

#define LIST_HEAD(name) struct list_head name = { &(name), &(name) }
#define list_first_entry(list, type, member) container_of((list)->next, type, member)
#define list_for_each_entry_rcu(entry, list, member)                                   \
	for ((entry) = container_of(READ_ONCE((list)->next), __typeof__(*(entry)), member); \
	     &(entry)->member != (list);                                               \
	     (entry) = container_of(READ_ONCE((entry)->member.next), __typeof__(*(entry)), member))

static inline void INIT_LIST_HEAD(struct list_head *list)
{
	list->next = list;
	list->prev = list;
}

static inline bool list_empty(const struct list_head *list)
{
	return READ_ONCE(list->next) == list;
}

static inline void link_between(struct list_head *entry, struct list_head *prev,
				struct list_head *next)
{
	entry->next = next;
	entry->prev = prev;
	next->prev = entry;
	__atomic_store_n(&prev->next, entry, __ATOMIC_RELEASE);
}

static inline void list_add_tail(struct list_head *entry, struct list_head *list)
{
	link_between(entry, list->prev, list);
}

static inline void list_add_rcu(struct list_head *entry, struct list_head *list)
{
	link_between(entry, list, list->next);
}

static inline void list_del(struct list_head *entry)
{
	entry->next->prev = entry->prev;
	WRITE_ONCE(entry->prev->next, entry->next);
}

#define list_del_rcu list_del

/* Grace periods are always over, reading needs nothing. */
#define rcu_read_lock_sched_notrace() __atomic_signal_fence(__ATOMIC_SEQ_CST)
#define rcu_read_unlock_sched_notrace() __atomic_signal_fence(__ATOMIC_SEQ_CST)
#define get_state_synchronize_rcu() 0
#define poll_state_synchronize_rcu(state) ((void)(state), true)

/* Reference counts that saturate. */
typedef struct {
	int refs;
} refcount_t;

#define REFCOUNT_SATURATED (INT32_MIN / 2)

static inline void refcount_set(refcount_t *count, int refs)
{
	__atomic_store_n(&count->refs, refs, __ATOMIC_RELAXED);
}

static inline int refcount_read(const refcount_t *count)
{
	return __atomic_load_n(&count->refs, __ATOMIC_RELAXED);
}

static inline bool refcount_inc_not_zero(refcount_t *count)
{
	int old = refcount_read(count);

	do {
		if (!old)
			return false;
	} while (!__atomic_compare_exchange_n(&count->refs, &old, old + 1, true, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	if (unlikely(old < 0 || old == INT32_MAX))
		refcount_set(count, REFCOUNT_SATURATED);
	return true;
}

static inline bool refcount_dec_and_test(refcount_t *count)
{
	int old = __atomic_fetch_sub(&count->refs, 1, __ATOMIC_RELEASE);

	if (old == 1) {
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		return true;
	}
	if (unlikely(old <= 0))
		refcount_set(count, REFCOUNT_SATURATED);
	return false;
}

/* The lock: one compare-and-exchange, one store, when nobody waits. */
typedef struct {
	u32 taken;
} raw_spinlock_t;

#define DEFINE_RAW_SPINLOCK(name) raw_spinlock_t name
#define raw_spin_lock_irqsave(lock, flags) ((void)((flags) = 0), spin_lock(lock))
#define raw_spin_trylock_irqsave(lock, flags) ((void)((flags) = 0), spin_trylock(lock))
#define raw_spin_unlock_irqrestore(lock, flags) ((void)(flags), spin_unlock(lock))
#define DEFINE_MUTEX(name) raw_spinlock_t name
#define mutex_lock spin_lock
#define mutex_unlock spin_unlock

static inline bool spin_trylock(raw_spinlock_t *lock)
{
	u32 open = 0;

	return __atomic_compare_exchange_n(&lock->taken, &open, 1, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

static inline void spin_lock(raw_spinlock_t *lock)
{
	while (unlikely(!spin_trylock(lock)))
		__builtin_ia32_pause();
}

static inline void spin_unlock(raw_spinlock_t *lock)
{
	__atomic_store_n(&lock->taken, 0, __ATOMIC_RELEASE);
}

/* Memory: mapped, untouched, never given back; a pool that was not used is kept for the next. */
struct page;

#define gfp_nested_mask(flags) (flags)
#define page_address(page) ((void *)(page))
#define nr_free_buffer_pages() (1UL << 20)

static inline void *kvcalloc(size_t count, size_t bytes, gfp_t flags)
{
	void *memory = mmap(NULL, count * bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	(void)flags;
	return memory == MAP_FAILED ? NULL : memory;
}

static inline void *alloc_large_system_hash(const char *name, size_t bytes, unsigned long count,
					    int scale, int flags, void *shift, unsigned int *mask,
					    unsigned long low, unsigned long high)
{
	(void)name, (void)scale, (void)flags, (void)shift, (void)low, (void)high;
	*mask = (unsigned int)count - 1;
	return kvcalloc(count, bytes, 0);
}

struct page *alloc_pages(gfp_t flags, unsigned int order);
void free_pages(unsigned long address, unsigned int order);

/* What is printed is nobody's business here. */
struct seq_file;
struct dentry;

#define seq_printf(file, ...) ((void)(file))
#define debugfs_create_dir(name, parent) NULL
#define debugfs_create_file(name, mode, dir, data, operations) ((void)(dir))
#define stack_trace_print(entries, count, spaces) ((void)(entries))
#define stack_trace_snprint(buffer, bytes, entries, count, spaces) 0
#define filter_irq_stacks(entries, count) (count)
#define kstrtobool(text, answer) ((void)(text), (void)(answer), 0)
