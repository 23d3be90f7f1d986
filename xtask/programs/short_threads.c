// Two hundred short-lived threads, never more than eight at once; each allocates, frees, hands one
// block to the next thread and ends. Prints a checksum that depends on every block's contents.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 200, AT_ONCE = 8, ROUNDS = 200 };

static void *short_life(void *given) {
    uint64_t sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        size_t size = 1 + (size_t)(round * 37 % 4096);
        unsigned char *block = malloc(size);
        memset(block, round, size);
        block = realloc(block, size * 2);
        for (size_t at = 0; at < size; at++)
            sum = sum * 31 + block[at];
        free(block);
    }
    if (given) {
        sum ^= *(uint64_t *)given;
        free(given); // allocated by another thread, which has ended
    }
    uint64_t *result = calloc(1, sizeof *result);
    *result = sum;
    return result;
}

int main(void) {
    pthread_t threads[AT_ONCE];
    void *results[AT_ONCE] = {0};
    for (int started = 0; started < THREADS; started += AT_ONCE) {
        for (int index = 0; index < AT_ONCE; index++)
            if (pthread_create(&threads[index], NULL, short_life, results[index]))
                return 1;
        for (int index = 0; index < AT_ONCE; index++)
            pthread_join(threads[index], &results[index]);
    }
    uint64_t total = 0;
    for (int index = 0; index < AT_ONCE; index++) {
        total = total * 131 + *(uint64_t *)results[index];
        free(results[index]);
    }
    printf("checksum %016llx\n", (unsigned long long)total);
    return 7; // an exit status of its own, which a recorder must hand on
}
