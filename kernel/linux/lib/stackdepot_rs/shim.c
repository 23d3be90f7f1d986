// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Stack depot over the Rust core: a bounded, evicting store of stack traces.
 *
 * The core (sdc.h) does everything that touches the stored stacks, without locks and without
 * allocating; here is what C has to do: where the memory comes from, the command line, what the API
 * promises beyond the core, printing, debugfs.
 *
 * Memory is taken once, table, stacks, counts and ring together: stack_depot.bytes= is the bound.
 * So STACK_DEPOT_FLAG_CAN_ALLOC changes nothing, and every save works in every context.
 */

#define pr_fmt(fmt) "stackdepot: " fmt

#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/kmsan.h>
#include <linux/memblock.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/random.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/stackdepot.h>
#include <linux/stacktrace.h>

#include "internal.h"

/* Below this a bound is raised to it. */
#define LEAST_BYTES		SZ_256K
/* Without stack_depot.bytes=: a 64th of the memory, within these limits. */
#define DEFAULT_LEAST_BYTES	SZ_4M
#define DEFAULT_MOST_BYTES	SZ_128M
#define DEFAULT_SHARE_SHIFT	6
/* How many fetched stacks of a CPU stay readable. */
#define FETCH_BUFFERS		4

static struct sdc_depot depot;
static struct sdc_ring ring;
static bool depot_is_there;
static bool ring_is_there;
static unsigned long depot_bytes;

static bool disabled;
static bool early_init_requested __initdata = IS_ENABLED(CONFIG_STACKDEPOT_ALWAYS_INIT);
static bool early_init_passed __initdata;
static bool counts_requested;
static unsigned long wanted_bytes;
static unsigned int wanted_events;

struct fetch_buffers {
	unsigned int next;
	unsigned long entries[FETCH_BUFFERS][CONFIG_STACKDEPOT_MAX_FRAMES];
};
static DEFINE_PER_CPU(struct fetch_buffers, fetch_buffers);

static int __init parse_disable(char *str)
{
	return kstrtobool(str, &disabled);
}
early_param("stack_depot_disable", parse_disable);

static int __init parse_bytes(char *str)
{
	wanted_bytes = memparse(str, NULL);
	return wanted_bytes ? 0 : -EINVAL;
}
early_param("stack_depot.bytes", parse_bytes);

static int __init parse_ring(char *str)
{
	return kstrtouint(str, 0, &wanted_events);
}
early_param("stack_depot.ring", parse_ring);

void __init stack_depot_request_early_init(void)
{
	/* Too late to request early init now. */
	WARN_ON(early_init_passed);
	early_init_requested = true;
}

void __init stack_depot_request_counts(void)
{
	WARN_ON(early_init_passed);
	counts_requested = true;
}

static unsigned long bound(unsigned long memory_bytes)
{
	unsigned long bytes = wanted_bytes;

	if (!bytes)
		bytes = clamp(memory_bytes >> DEFAULT_SHARE_SHIFT,
			      (unsigned long)DEFAULT_LEAST_BYTES,
			      (unsigned long)DEFAULT_MOST_BYTES);
	return max(PAGE_ALIGN_DOWN(bytes), (unsigned long)LEAST_BYTES);
}

/* Puts depot and ring into zeroed memory. */
static int settle(void *base, unsigned long bytes)
{
	unsigned long ring_bytes = wanted_events ? sdc_ring_bytes(wanted_events) : 0;
	struct sdc_config config = {
		.seed = get_random_u64(),
		.payload_words = counts_requested,
		.max_frames = CONFIG_STACKDEPOT_MAX_FRAMES,
		.lease_ticks = sdc_ring_lease_ticks(wanted_events ?: 16),
		.generation_limit = U32_MAX,
	};

	if (wanted_events && (!ring_bytes || ring_bytes > bytes / 2)) {
		pr_warn("a ring of %u events does not fit: no ring\n", wanted_events);
		ring_bytes = 0;
	}
	config.bytes = bytes - ring_bytes;
	if (sdc_create(&depot, base, &config))
		return -EINVAL;
	depot_bytes = bytes;
	if (ring_bytes && !sdc_ring_create(&ring, base + config.bytes, wanted_events))
		smp_store_release(&ring_is_there, true);
	/* Pairs with stack_depot_core(): who sees it sees the depot. */
	smp_store_release(&depot_is_there, true);
	return 0;
}

const struct sdc_depot *stack_depot_core(void)
{
	return likely(smp_load_acquire(&depot_is_there)) ? &depot : NULL;
}

const struct sdc_ring *stack_depot_ring(void)
{
	return smp_load_acquire(&ring_is_there) ? &ring : NULL;
}

unsigned long stack_depot_bytes(void)
{
	return depot_bytes;
}

/* Takes the memory from memblock, before there are other allocators. */
int __init stack_depot_early_init(void)
{
	unsigned long bytes = bound(memblock_phys_mem_size());
	void *base;

	if (WARN_ON(early_init_passed))
		return 0;
	early_init_passed = true;
	if (disabled) {
		pr_info("disabled\n");
		return 0;
	}
	if (!early_init_requested)
		return 0;
	base = memblock_alloc(bytes, PAGE_SIZE);
	if (!base || settle(base, bytes)) {
		pr_err("no %lu bytes for stacks, disabling\n", bytes);
		disabled = true;
		return -ENOMEM;
	}
	pr_info("%lu KiB for stacks\n", bytes >> 10);
	return 0;
}

/* Takes the memory after boot; may be called again. */
int stack_depot_init(void)
{
	static DEFINE_MUTEX(init_mutex);
	unsigned long bytes;
	void *base;
	int ret = 0;

	mutex_lock(&init_mutex);
	if (disabled || stack_depot_core())
		goto unlock;
	bytes = bound(totalram_pages() << PAGE_SHIFT);
	base = kvzalloc(bytes, GFP_KERNEL);
	if (!base || settle(base, bytes)) {
		pr_err("no %lu bytes for stacks, disabling\n", bytes);
		kvfree(base);
		disabled = true;
		ret = -ENOMEM;
		goto unlock;
	}
	pr_info("%lu KiB for stacks\n", bytes >> 10);
unlock:
	mutex_unlock(&init_mutex);
	return ret;
}
EXPORT_SYMBOL_GPL(stack_depot_init);

depot_stack_handle_t stack_depot_save_flags(unsigned long *entries,
					    unsigned int nr_entries,
					    gfp_t alloc_flags,
					    depot_flags_t depot_flags)
{
	return depot_save_flags(stack_depot_core(), entries, nr_entries, depot_flags);
}
EXPORT_SYMBOL_GPL(stack_depot_save_flags);

depot_stack_handle_t stack_depot_save(unsigned long *entries,
				      unsigned int nr_entries,
				      gfp_t alloc_flags)
{
	return stack_depot_save_flags(entries, nr_entries, alloc_flags,
				      STACK_DEPOT_FLAG_CAN_ALLOC);
}
EXPORT_SYMBOL_GPL(stack_depot_save);

unsigned int stack_depot_fetch_into(depot_stack_handle_t handle,
				    unsigned long *entries, unsigned int max)
{
	return depot_fetch_into(stack_depot_core(), handle, entries, max);
}
EXPORT_SYMBOL_GPL(stack_depot_fetch_into);

unsigned int stack_depot_fetch(depot_stack_handle_t handle,
			       unsigned long **entries)
{
	struct fetch_buffers *buffers = raw_cpu_ptr(&fetch_buffers);
	unsigned int turn = raw_cpu_inc_return(fetch_buffers.next) % FETCH_BUFFERS;
	unsigned int nr_entries;

	*entries = NULL;
	kmsan_unpoison_memory(entries, sizeof(*entries));
	nr_entries = stack_depot_fetch_into(handle, buffers->entries[turn],
					    CONFIG_STACKDEPOT_MAX_FRAMES);
	if (nr_entries)
		*entries = buffers->entries[turn];
	return nr_entries;
}
EXPORT_SYMBOL_GPL(stack_depot_fetch);

void stack_depot_put(depot_stack_handle_t handle)
{
	depot_put(stack_depot_core(), handle);
}
EXPORT_SYMBOL_GPL(stack_depot_put);

void stack_depot_print(depot_stack_handle_t handle)
{
	unsigned long entries[CONFIG_STACKDEPOT_MAX_FRAMES];
	unsigned int nr_entries;

	nr_entries = stack_depot_fetch_into(handle, entries, ARRAY_SIZE(entries));
	if (nr_entries)
		stack_trace_print(entries, nr_entries, 0);
}
EXPORT_SYMBOL_GPL(stack_depot_print);

int stack_depot_snprint(depot_stack_handle_t handle, char *buf, size_t size,
			int spaces)
{
	unsigned long entries[CONFIG_STACKDEPOT_MAX_FRAMES];
	unsigned int nr_entries;

	nr_entries = stack_depot_fetch_into(handle, entries, ARRAY_SIZE(entries));
	return nr_entries ? stack_trace_snprint(buf, size, entries, nr_entries,
						spaces) : 0;
}
EXPORT_SYMBOL_GPL(stack_depot_snprint);

depot_stack_handle_t __must_check stack_depot_set_extra_bits(
			depot_stack_handle_t handle, unsigned int extra_bits)
{
	const unsigned int shift = DEPOT_HANDLE_BITS - STACK_DEPOT_EXTRA_BITS;

	/* Don't set extra bits on empty handles. */
	if (!handle)
		return 0;
	return (handle & ((1U << shift) - 1)) | extra_bits << shift;
}
EXPORT_SYMBOL(stack_depot_set_extra_bits);

unsigned int stack_depot_get_extra_bits(depot_stack_handle_t handle)
{
	return handle >> (DEPOT_HANDLE_BITS - STACK_DEPOT_EXTRA_BITS);
}
EXPORT_SYMBOL(stack_depot_get_extra_bits);

void stack_depot_add_count(depot_stack_handle_t handle, long delta)
{
	const struct sdc_depot *core = stack_depot_core();

	if (handle && core)
		sdc_add(core, handle, delta);
}
EXPORT_SYMBOL_GPL(stack_depot_add_count);

depot_stack_handle_t stack_depot_next(u32 *cursor, long *count)
{
	const struct sdc_depot *core = stack_depot_core();

	return core ? sdc_next(core, cursor, (u64 *)count) : 0;
}
EXPORT_SYMBOL_GPL(stack_depot_next);

static int stats_show(struct seq_file *seq, void *v)
{
	struct sdc_stats stats;

	sdc_stats(&depot, &stats);
	seq_printf(seq, "bytes: %lu\n", depot_bytes);
	seq_printf(seq, "slots: %llu\n", stats.slots);
	seq_printf(seq, "slots_used: %llu\n", stats.nodes);
	seq_printf(seq, "stacks: %llu\n", stats.new_stacks - stats.evicted_stacks);
	seq_printf(seq, "stacks_saved: %llu\n", stats.new_stacks);
	seq_printf(seq, "stacks_evicted: %llu\n", stats.evicted_stacks);
	seq_printf(seq, "refused_full: %llu\n", stats.full);
	seq_printf(seq, "refused_contended: %llu\n", stats.contended);
	seq_printf(seq, "refused_crowded: %llu\n", stats.crowded);
	seq_printf(seq, "refused_saturated: %llu\n", stats.saturated);
	seq_printf(seq, "truncated: %llu\n", stats.truncated);
	seq_printf(seq, "wide_nodes: %llu\n", stats.wide_nodes);
	seq_printf(seq, "worn_slots: %llu\n", stats.worn_slots);
	seq_printf(seq, "stale_puts: %llu\n", stats.stale_puts);
	seq_printf(seq, "stale_fetches: %llu\n", stats.stale_fetches);
	seq_printf(seq, "generation_bits_in_handle: %llu\n",
		   DEPOT_HANDLE_BITS - STACK_DEPOT_EXTRA_BITS - stats.slot_bits);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int __init stack_depot_debugfs_init(void)
{
	struct dentry *dir;

	if (!stack_depot_core())
		return 0;
	dir = debugfs_create_dir("stackdepot", NULL);
	debugfs_create_file("stats", 0444, dir, NULL, &stats_fops);
	return 0;
}
late_initcall(stack_depot_debugfs_init);
