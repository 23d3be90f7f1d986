// The program of bar 2: two threads leak 1000 blocks of 64 bytes in leak_a and 10 of 1 MiB in
// leak_b, and free all of the 10^6 blocks that churn takes. Its last two lines, printed without
// allocating just before exit, name the last block freed and an address inside a live block.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SMALL_BLOCKS = 1000, LARGE_BLOCKS = 10, CHURN_BLOCKS = 1000000, INNER_OFFSET = 4321 };

static void *volatile kept_small[SMALL_BLOCKS];
static void *volatile kept_large[LARGE_BLOCKS];
static void *volatile last_freed;

__attribute__((noinline)) static void leak_a(int index) {
    kept_small[index] = malloc(64);
    memset(kept_small[index], 1, 64);
}

__attribute__((noinline)) static void leak_b(int index) {
    kept_large[index] = malloc(1 << 20);
    memset(kept_large[index], 2, 1 << 20);
}

__attribute__((noinline)) static void *churn_take(size_t size) {
    void *volatile block = malloc(size);
    return block;
}

__attribute__((noinline)) static void churn_drop(void *block) {
    last_freed = block;
    free(block);
    __asm__ volatile("" ::: "memory"); // no tail call: this frame must be on the stack
}

__attribute__((noinline)) static void churn(int count) {
    for (int done = 0; done < count; done++)
        churn_drop(churn_take(16 + (size_t)done % 1000));
}

static void *work(void *half) {
    int first = half != NULL;
    for (int index = first; index < SMALL_BLOCKS; index += 2)
        leak_a(index);
    for (int index = first; index < LARGE_BLOCKS; index += 2)
        leak_b(index);
    churn(CHURN_BLOCKS / 2 - first * 1000);
    return NULL;
}

int main(void) {
    pthread_t other;
    if (pthread_create(&other, NULL, work, (void *)1))
        return 1;
    work(NULL);
    pthread_join(other, NULL);
    churn(1000); // so that the last block freed is one of churn's
    char line[128];
    int length = snprintf(line, sizeof line, "freed %p\nlive %p %p\n", last_freed,
                          (void *)((char *)kept_large[3] + INNER_OFFSET), kept_large[3]);
    return write(STDOUT_FILENO, line, (size_t)length) == length ? 0 : 1;
}
