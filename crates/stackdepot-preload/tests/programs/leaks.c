// Two threads; 1000 blocks of 64 bytes leak in leak_a, 10 of 1 MiB in leak_b, and churn frees
// all of its 10^6 blocks. Prints the last block freed and an address inside a live one.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void *volatile kept[2000];
static void *volatile last_freed;
static void *volatile last_kept;

__attribute__((noinline)) static void leak_a(int i) { kept[i] = malloc(64); }
__attribute__((noinline)) static void leak_b(int i) { kept[1000 + i] = last_kept = malloc(1 << 20); }
__attribute__((noinline)) static void release(void *block) { free(block); }
__attribute__((noinline)) static void churn(int i) {
  void *volatile block = malloc(16 + i % 500);
  last_freed = block;
  release(block);
}

static void *second(void *nothing) {
  for (int i = 0; i < 500000; i++) churn(i);
  for (int i = 500; i < 1000; i++) leak_a(i);
  return nothing;
}

int main(void) {
  pthread_t thread;
  setvbuf(stdout, NULL, _IONBF, 0);
  pthread_create(&thread, NULL, second, NULL);
  for (int i = 0; i < 500; i++) leak_a(i);
  for (int i = 0; i < 10; i++) leak_b(i);
  pthread_join(thread, NULL);
  for (int i = 0; i < 500000; i++) churn(i);
  fprintf(stderr, "freed %p live %p\n", last_freed, (char *)last_kept + 12345);
  return 7;
}
