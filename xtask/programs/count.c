// Counts every allocation and free of a process tree, by the recorder's rules and nothing else.
//
// Preloaded, behind the recorder in the same run; adds to four counters in the file named by COUNT_FILE, which every process of the
// tree maps shared. It records no stack and knows nothing of the recorder: it is the oracle of
// bar 3 (`events` plus counted losses must equal `allocs` plus `frees`, exactly).
// Only images with STACKDEPOT_RUN in their environment count: not the command that starts them.
// A realloc that moves or resizes is one free and one alloc; realloc(p, 0) is one free.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void *__libc_valloc(size_t);
extern void *__libc_pvalloc(size_t);
extern void __libc_free(void *);

struct counters {
    uint64_t allocs, frees, failed_reallocs, images;
};

static struct counters early; // until the environment can be read
static struct counters *shared;
static int mapping_failed;

static struct counters *counters(void) {
    struct counters *now = __atomic_load_n(&shared, __ATOMIC_ACQUIRE);
    if (now || mapping_failed || !environ)
        return now ? now : &early;
    const char *path = getenv("STACKDEPOT_RUN") ? getenv("COUNT_FILE") : NULL;
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) {
        mapping_failed = 1;
        return &early;
    }
    void *map = mmap(NULL, sizeof(struct counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) {
        mapping_failed = 1;
        return &early;
    }
    struct counters *expected = NULL;
    if (!__atomic_compare_exchange_n(&shared, &expected, map, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        munmap(map, sizeof(struct counters));
        return expected;
    }
    now = map;
    __atomic_fetch_add(&now->allocs, __atomic_exchange_n(&early.allocs, 0, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
    __atomic_fetch_add(&now->frees, __atomic_exchange_n(&early.frees, 0, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
    __atomic_fetch_add(&now->images, 1, __ATOMIC_RELAXED);
    return now;
}

static void *allocated(void *block) {
    if (block) {
        int saved_errno = errno;
        __atomic_fetch_add(&counters()->allocs, 1, __ATOMIC_RELAXED);
        errno = saved_errno;
    }
    return block;
}

static void freed(void) {
    int saved_errno = errno;
    __atomic_fetch_add(&counters()->frees, 1, __ATOMIC_RELAXED);
    errno = saved_errno;
}

void *malloc(size_t size) { return allocated(__libc_malloc(size)); }
void *calloc(size_t count, size_t size) { return allocated(__libc_calloc(count, size)); }
void *memalign(size_t alignment, size_t size) { return allocated(__libc_memalign(alignment, size)); }
void *aligned_alloc(size_t alignment, size_t size) { return allocated(__libc_memalign(alignment, size)); }
void *valloc(size_t size) { return allocated(__libc_valloc(size)); }
void *pvalloc(size_t size) { return allocated(__libc_pvalloc(size)); }

int posix_memalign(void **out, size_t alignment, size_t size) {
    if (alignment % sizeof(void *) || (alignment & (alignment - 1)) || !alignment)
        return EINVAL;
    int saved_errno = errno;
    void *block = allocated(__libc_memalign(alignment, size));
    errno = saved_errno;
    if (!block)
        return ENOMEM;
    *out = block;
    return 0;
}

void *realloc(void *old, size_t size) {
    void *block = __libc_realloc(old, size);
    if (!old)
        return allocated(block);
    if (block) {
        freed();
        return allocated(block);
    }
    if (size == 0)
        freed();
    else
        __atomic_fetch_add(&counters()->failed_reallocs, 1, __ATOMIC_RELAXED);
    return block;
}

void free(void *block) {
    if (block)
        freed();
    __libc_free(block);
}
