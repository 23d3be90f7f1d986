/* Functions of every frame shape that compilers make, calling each other at random.
 *
 * Built by the unwinder's tests with the system's C compiler as a shared library. Each
 * function calls `probe` or goes deeper; what it keeps in its frame is what varies. */
#define _GNU_SOURCE
#include <alloca.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

struct tree {
    void (*probe)(void *);
    void *data;
    unsigned long seed;
    long probes_left;
    long depth_limit;
};

#define SHAPE static __attribute__((noinline, noclone))
#define KEEP(value) __asm__ volatile("" : : "r"(value) : "memory")

static unsigned pick(struct tree *tree)
{
    tree->seed ^= tree->seed << 13;
    tree->seed ^= tree->seed >> 7;
    tree->seed ^= tree->seed << 17;
    return (unsigned)(tree->seed >> 20);
}

static void go(struct tree *tree, long depth);

SHAPE void shape_plain(struct tree *tree, long depth)
{
    go(tree, depth + 1);
    KEEP(tree);
}

SHAPE void shape_saved_registers(struct tree *tree, long depth)
{
    long a = depth * 3, b = depth * 5, c = depth * 7, d = depth * 11, e = depth * 13;
    KEEP(a); KEEP(b); KEEP(c); KEEP(d); KEEP(e);
    go(tree, depth + 1);
    KEEP(a); KEEP(b); KEEP(c); KEEP(d); KEEP(e);
}

SHAPE void shape_alloca(struct tree *tree, long depth)
{
    char *place = alloca(pick(tree) % 700 + 1);
    KEEP(place);
    go(tree, depth + 1);
    KEEP(place);
}

SHAPE void shape_realigned(struct tree *tree, long depth)
{
    char place[96] __attribute__((aligned(64)));
    KEEP(place);
    go(tree, depth + 1);
    KEEP(place);
}

/* Realigned and with arguments on the stack: needs a pointer to the old stack (DRAP). */
SHAPE void shape_drap(struct tree *tree, long depth, long a, long b, long c, long d, long e, long f)
{
    char place[64] __attribute__((aligned(64)));
    char *other = alloca(pick(tree) % 300 + 1);
    KEEP(place);
    KEEP(other);
    go(tree, depth + 1 + (a + b + c + d + e + f) * 0);
    KEEP(place);
    KEEP(a + e + f);
}

SHAPE void shape_big(struct tree *tree, long depth)
{
    char place[20000];
    KEEP(place);
    go(tree, depth + 1);
    KEEP(place);
}

SHAPE __attribute__((optimize("no-omit-frame-pointer"))) void shape_frame_pointer(struct tree *tree, long depth)
{
    char place[40];
    KEEP(place);
    go(tree, depth + 1);
    KEEP(place);
}

static int compare(const void *left, const void *right)
{
    struct tree *tree = *(struct tree *const *)left;
    if (tree->depth_limit >= 0) {
        long limit = tree->depth_limit;
        go(tree, limit - 1);
    }
    return (int)(left > right);
}

/* Through code of another library. */
SHAPE void shape_callback(struct tree *tree, long depth)
{
    struct tree *pair[2] = {tree, tree};
    if (depth + 3 < tree->depth_limit) {
        qsort(pair, 2, sizeof pair[0], compare);
    } else {
        go(tree, depth + 1);
    }
    KEEP(pair);
}

static __attribute__((noinline)) void go(struct tree *tree, long depth)
{
    for (unsigned turns = 1 + pick(tree) % 3; turns > 0 && tree->probes_left > 0; turns--) {
        if (depth >= tree->depth_limit || pick(tree) % 8 == 0) {
            tree->probes_left--;
            tree->probe(tree->data);
            continue;
        }
        switch (pick(tree) % 9) {
        case 0: case 1: shape_plain(tree, depth); break;
        case 2: shape_saved_registers(tree, depth); break;
        case 3: shape_alloca(tree, depth); break;
        case 4: shape_realigned(tree, depth); break;
        case 5: shape_drap(tree, depth, 1, 2, 3, 4, 5, 6); break;
        case 6: shape_frame_pointer(tree, depth); break;
        case 7: shape_callback(tree, depth); break;
        case 8: if (depth < 20) shape_big(tree, depth); else shape_plain(tree, depth); break;
        }
    }
    KEEP(tree);
}

void run_tree(struct tree *tree)
{
    while (tree->probes_left > 0)
        go(tree, 0);
}

/* --- coroutines on stacks of their own --- */

static ucontext_t main_context, coroutine_contexts[2];
static struct tree *coroutine_tree;

static void coroutine(int index)
{
    for (;;) {
        long before = coroutine_tree->probes_left;
        coroutine_tree->probes_left = 5;
        run_tree(coroutine_tree);
        coroutine_tree->probes_left = before - 5;
        swapcontext(&coroutine_contexts[index], &main_context);
    }
}

void run_coroutines(struct tree *tree, void *stacks, size_t stack_bytes)
{
    coroutine_tree = tree;
    for (int index = 0; index < 2; index++) {
        getcontext(&coroutine_contexts[index]);
        coroutine_contexts[index].uc_stack.ss_sp = (char *)stacks + index * stack_bytes;
        coroutine_contexts[index].uc_stack.ss_size = stack_bytes;
        coroutine_contexts[index].uc_link = &main_context;
        makecontext(&coroutine_contexts[index], (void (*)(void))coroutine, 1, index);
    }
    while (tree->probes_left > 0) {
        swapcontext(&main_context, &coroutine_contexts[0]);
        swapcontext(&main_context, &coroutine_contexts[1]);
    }
}

/* --- words of dead frames that still look alive --- */

typedef void (*leaf_fn)(void (*)(void *), void *);

SHAPE void leaf_plain(void (*probe)(void *), void *data)
{
    probe(data);
    KEEP(data);
}

SHAPE __attribute__((optimize("no-omit-frame-pointer"))) void leaf_frame_pointer(void (*probe)(void *), void *data)
{
    char place[40];
    KEEP(place);
    probe(data);
    KEEP(place);
}

SHAPE void middle_alloca(void (*probe)(void *), void *data, leaf_fn leaf, long size)
{
    char *place = alloca(size);
    KEEP(place);
    leaf(probe, data);
    KEEP(place);
}

SHAPE void middle_drap(void (*probe)(void *), void *data, leaf_fn leaf, long size)
{
    char place[64] __attribute__((aligned(64)));
    char *other = alloca(64);
    KEEP(place);
    KEEP(other);
    KEEP(size);
    leaf(probe, data);
    KEEP(place);
}

typedef void (*middle_fn)(void (*)(void *), void *, leaf_fn, long);

#define OUTER(name, number)                                                                 \
    SHAPE void name(void (*probe)(void *), void *data, middle_fn middle, leaf_fn leaf,      \
                    long pad, long size)                                                    \
    {                                                                                       \
        char *place = alloca(pad);                                                          \
        KEEP(place);                                                                        \
        middle(probe, data, leaf, size);                                                    \
        KEEP(place);                                                                        \
        KEEP((long)number);                                                                 \
    }

OUTER(outer_one, 1)
OUTER(outer_two, 2)

typedef void (*outer_fn)(void (*)(void *), void *, middle_fn, leaf_fn, long, long);

/* Two call paths whose inner frames lie at the same addresses, and whose outer ones do not:
 * what the first left behind lies untouched inside a frame of the second. */
void stale_frames(void (*probe)(void *), void *data)
{
    static const middle_fn middles[] = {middle_alloca, middle_drap};
    static const outer_fn outers[] = {outer_one, outer_two};
    static const leaf_fn leaves[] = {leaf_plain, leaf_frame_pointer};
    for (int turn = 0; turn < 2 * 2 * 8 * 8; turn++) {
        middle_fn middle = middles[turn & 1];
        leaf_fn leaf = leaves[turn >> 1 & 1];
        long one = 16 + 16 * (turn >> 2 & 7), two = 16 + 16 * (turn >> 5 & 7);
        /* One call place for both, so that only the dead frames differ. */
        for (int path = 0; path < 2; path++) {
            long pad = path ? two : one;
            outers[path](probe, data, middle, leaf, pad, 512 - pad);
        }
    }
}

/* --- signals --- */

static struct tree *signal_tree;

static void handler(int number)
{
    (void)number;
    run_tree(signal_tree);
}

/* Runs a tree inside a handler, which interrupts a few frames of its own kind. */
void run_in_handler(struct tree *tree, int depth, int flags)
{
    char place[64] __attribute__((aligned(64)));
    KEEP(place);
    if (depth > 0) {
        run_in_handler(tree, depth - 1, flags);
        KEEP(place);
        return;
    }
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = flags;
    signal_tree = tree;
    sigaction(SIGUSR2, &action, NULL);
    raise(SIGUSR2);
    KEEP(place);
}

static void probe_handler(int number)
{
    (void)number;
    if (signal_tree->probes_left > 0) {
        signal_tree->probes_left--;
        signal_tree->probe(signal_tree->data);
    }
}

static void no_probe(void *data)
{
    KEEP(data);
}

/* Keeps calling until signals from elsewhere, at any instruction, have used up the probes; counts
   its turns. */
void spin_under_signals(struct tree *tree, long *turns)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = probe_handler;
    signal_tree = tree;
    sigaction(SIGUSR2, &action, NULL);
    struct tree work = {no_probe, NULL, 12345, 0, 12};
    while (*(volatile long *)&tree->probes_left > 0) {
        work.probes_left = 50;
        run_tree(&work);
        __atomic_fetch_add(turns, 1, __ATOMIC_RELAXED);
    }
}

int plain_recursion(void (*probe)(void *), void *data, int depth);

/* Through memory, so that the compiler does not unroll the recursion. */
static int (*volatile recurse)(void (*)(void *), void *, int) = plain_recursion;

int plain_recursion(void (*probe)(void *), void *data, int depth)
{
    int result = 0;
    if (depth > 0)
        result = recurse(probe, data, depth - 1) + 1;
    else
        probe(data);
    KEEP(result);
    return result;
}
