/* Four threads that do nothing but malloc and free: the most that a recorder can cost. */
#include <pthread.h>
#include <stdlib.h>

enum { THREADS = 4, STEPS = 5000000, KEPT = 64 };

static void *work(void *seed) {
  void *kept[KEPT] = {0};
  unsigned random = (unsigned)(size_t)seed;
  for (int step = 0; step < STEPS; step++) {
    random = random * 1664525 + 1013904223;
    unsigned place = random >> 26;
    free(kept[place]);
    kept[place] = malloc(16 + (random >> 16 & 255));
    *(volatile char *)kept[place] = 1;
  }
  for (int place = 0; place < KEPT; place++) free(kept[place]);
  return NULL;
}

int main(void) {
  pthread_t threads[THREADS];
  for (size_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, work, (void *)(i + 1));
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  return 0;
}
