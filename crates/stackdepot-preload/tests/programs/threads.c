// As many short-lived threads as asked, each allocating and leaving one block; small stacks if many
// run at once.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void *run(void *nothing) {
  for (int i = 0; i < 100; i++) free(malloc(10 + i));
  return malloc(32);
}

int main(int count, char **arguments) {
  int total = count > 1 ? atoi(arguments[1]) : 200;
  int at_once = count > 2 ? atoi(arguments[2]) : 20;
  pthread_t *threads = malloc(sizeof *threads * at_once);
  pthread_attr_t small;
  pthread_attr_init(&small);
  if (at_once > 8) pthread_attr_setstacksize(&small, 65536);
  int blocks = 0;
  for (int done = 0; done < total; done += at_once) {
    for (int i = 0; i < at_once; i++) pthread_create(&threads[i], &small, run, NULL);
    for (int i = 0; i < at_once; i++) {
      void *block;
      pthread_join(threads[i], &block);
      blocks += block != NULL;
    }
  }
  free(threads);
  printf("%d\n", blocks);
  return 0;
}
