// More threads than have scratch memory so far have their first event, a free, while the address space
// is used up: errno stays as it was.
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { THREADS = 100 };

static pthread_barrier_t steps;
static void *volatile blocks[THREADS];
static int changed[THREADS];

static void *run(void *argument) {
  long i = (long)argument;
  pthread_barrier_wait(&steps);
  pthread_barrier_wait(&steps);
  errno = 77;
  free((void *)blocks[i]);
  changed[i] = errno != 77;
  // Nobody ends before all have come.
  pthread_barrier_wait(&steps);
  return NULL;
}

int main(void) {
  pthread_t threads[THREADS];
  pthread_attr_t small;
  struct rlimit limit;
  int sum = 0;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 65536);
  pthread_barrier_init(&steps, NULL, THREADS + 1);
  for (long i = 0; i < THREADS; i++) {
    blocks[i] = malloc(20);
    pthread_create(&threads[i], &small, run, (void *)i);
  }
  pthread_barrier_wait(&steps);
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = 1 << 20;
  setrlimit(RLIMIT_AS, &limit);
  pthread_barrier_wait(&steps);
  pthread_barrier_wait(&steps);
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
    sum += changed[i];
  }
  printf("errno changed %d times\n", sum);
  return 0;
}
