// Allocates and frees on four threads, at changing depths, until it is killed (bar 6).
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

enum { THREADS = 4, KEPT = 4096 };

__attribute__((noinline)) static void *take(unsigned depth, uint64_t path, size_t size);

__attribute__((noinline)) static void *left(unsigned depth, uint64_t path, size_t size) {
    void *volatile block = take(depth, path, size);
    return block;
}

__attribute__((noinline)) static void *right(unsigned depth, uint64_t path, size_t size) {
    void *volatile block = take(depth, path, size);
    return block;
}

static void *take(unsigned depth, uint64_t path, size_t size) {
    if (depth == 0)
        return malloc(size);
    return (path & 1 ? left : right)(depth - 1, path >> 1, size);
}

static void *run(void *seed) {
    uint64_t state = (uint64_t)(uintptr_t)seed * 0x9e3779b97f4a7c15u + 1;
    void **kept = calloc(KEPT, sizeof *kept);
    for (;;) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        void **place = &kept[state % KEPT];
        free(*place);
        *place = take((unsigned)(state >> 20 & 15), state >> 24, 1 + (size_t)(state >> 40 & 511));
    }
    return NULL;
}

int main(void) {
    pthread_t thread;
    for (uintptr_t number = 1; number < THREADS; number++)
        if (pthread_create(&thread, NULL, run, (void *)number))
            return 1;
    run(NULL);
    return 0;
}
