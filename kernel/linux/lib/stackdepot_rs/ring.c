// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The newest allocations and frees of the slab allocators, each with its stack.
 *
 * stack_depot.ring=EVENTS turns it on. The events come from the tracepoints of kmalloc and kfree; the
 * stacks are held by leases, which end when the event has left the ring. Writing an address to debugfs
 * stackdepot/who and reading it back tells who allocated and who freed the object there last.
 */

#define pr_fmt(fmt) "stackdepot: " fmt

#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/sched/clock.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/stacktrace.h>
#include <linux/uaccess.h>
#include <trace/events/kmem.h>

#include "internal.h"

#define RING_DEPTH 32
/* The frames of the probe itself. */
#define PROBE_FRAMES 2

static atomic_long_t events_without_stack;
static atomic_long_t events_lapped;

static noinline void push(enum sdc_kind kind, const void *address, size_t size)
{
	unsigned long frames[RING_DEPTH];
	struct sdc_event event = {
		.address = (unsigned long)address,
		.size = size,
		.time = local_clock(),
		.thread = current->pid,
		.kind = kind,
	};
	unsigned int count;

	count = stack_trace_save(frames, ARRAY_SIZE(frames), PROBE_FRAMES);
	count = cut_at_interrupt(frames, count);
	switch (sdc_ring_push(stack_depot_ring(), stack_depot_core(), &event, frames, count)) {
	case SDC_NO_STACK:
		atomic_long_inc(&events_without_stack);
		break;
	case SDC_LAPPED:
		atomic_long_inc(&events_lapped);
		break;
	}
}

static void on_kmalloc(void *data, unsigned long call_site, const void *ptr,
		       size_t bytes_req, size_t bytes_alloc, gfp_t gfp_flags, int node)
{
	if (!ZERO_OR_NULL_PTR(ptr))
		push(SDC_ALLOC, ptr, bytes_req);
}

static void on_cache_alloc(void *data, unsigned long call_site, const void *ptr,
			   struct kmem_cache *cache, gfp_t gfp_flags, int node)
{
	if (ptr)
		push(SDC_ALLOC, ptr, kmem_cache_size(cache));
}

static void on_kfree(void *data, unsigned long call_site, const void *ptr)
{
	if (!ZERO_OR_NULL_PTR(ptr))
		push(SDC_FREE, ptr, 0);
}

static void on_cache_free(void *data, unsigned long call_site, const void *ptr,
			  const struct kmem_cache *cache)
{
	if (ptr)
		push(SDC_FREE, ptr, 0);
}

/* What a reader of the ring works with: too much for the kernel's stack. */
static struct {
	struct mutex lock;
	unsigned long address;
	struct sdc_cursor cursor;
	unsigned long frames[CONFIG_STACKDEPOT_MAX_FRAMES];
} reader = { .lock = __MUTEX_INITIALIZER(reader.lock) };

static bool is_about(const struct sdc_event *event)
{
	return event->address == reader.address ||
	       (reader.address > event->address &&
		reader.address - event->address < event->size);
}

static int who_show(struct seq_file *seq, void *v)
{
	bool is_seen[] = { [SDC_ALLOC] = false, [SDC_FREE] = false };
	struct sdc_event event;
	int count, i;

	mutex_lock(&reader.lock);
	seq_printf(seq, "object at %lx\n", reader.address);
	sdc_ring_begin(stack_depot_ring(), &reader.cursor);
	while (!is_seen[SDC_ALLOC] || !is_seen[SDC_FREE]) {
		count = sdc_ring_next(stack_depot_ring(), stack_depot_core(), &reader.cursor,
				      &event, reader.frames, ARRAY_SIZE(reader.frames));
		if (count < 0)
			break;
		if (!is_about(&event) || is_seen[event.kind])
			continue;
		is_seen[event.kind] = true;
		seq_printf(seq, "%s by task %u:\n",
			   event.kind == SDC_ALLOC ? "Allocated" : "Freed", event.thread);
		for (i = 0; i < count; i++)
			seq_printf(seq, " %pS\n", (void *)reader.frames[i]);
		if (!count)
			seq_puts(seq, "(stack is not available)\n");
	}
	mutex_unlock(&reader.lock);
	return 0;
}

static ssize_t who_write(struct file *file, const char __user *text, size_t size, loff_t *at)
{
	unsigned long address;
	int error = kstrtoul_from_user(text, size, 16, &address);

	if (error)
		return error;
	mutex_lock(&reader.lock);
	reader.address = address;
	mutex_unlock(&reader.lock);
	return size;
}

static int who_open(struct inode *inode, struct file *file)
{
	return single_open(file, who_show, NULL);
}

static const struct file_operations who_fops = {
	.open = who_open,
	.read = seq_read,
	.write = who_write,
	.llseek = seq_lseek,
	.release = single_release,
};

static int ring_show(struct seq_file *seq, void *v)
{
	seq_printf(seq, "events_without_stack: %ld\n", atomic_long_read(&events_without_stack));
	seq_printf(seq, "events_lapped: %ld\n", atomic_long_read(&events_lapped));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(ring);

static int __init stack_depot_ring_init(void)
{
	struct dentry *dir;

	if (!stack_depot_ring())
		return 0;
	if (register_trace_kmalloc(on_kmalloc, NULL) ||
	    register_trace_kmem_cache_alloc(on_cache_alloc, NULL) ||
	    register_trace_kfree(on_kfree, NULL) ||
	    register_trace_kmem_cache_free(on_cache_free, NULL))
		pr_warn("the ring misses events: a probe was refused\n");
	dir = debugfs_lookup("stackdepot", NULL);
	debugfs_create_file("who", 0600, dir, NULL, &who_fops);
	debugfs_create_file("ring", 0400, dir, NULL, &ring_fops);
	dput(dir);
	return 0;
}
/* After the folder was made by a late_initcall. */
late_initcall_sync(stack_depot_ring_init);
