// Every C form once; each block is freed, each alignment checked.
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(const char *name, void *block, size_t align) {
  printf("%s %s %s\n", name, block ? "block" : "null", (uintptr_t)block % align ? "unaligned" : "aligned");
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  void *volatile p = malloc(10);
  check("malloc", p, 16);
  p = realloc(p, 100000);
  check("realloc", p, 16);
  p = reallocarray(p, 10, 10);
  check("reallocarray", p, 16);
  free(p);
  char *zeros = calloc(100, 100);
  int sum = 0;
  for (int i = 0; i < 10000; i++) sum |= zeros[i];
  printf("calloc %d\n", sum);
  free(zeros);
  p = aligned_alloc(64, 128);
  check("aligned_alloc", p, 64);
  free(p);
  p = memalign(256, 100);
  check("memalign", p, 256);
  free(p);
  void *q = NULL;
  printf("posix_memalign %d\n", posix_memalign(&q, 4096, 100));
  check("posix_memalign", q, 4096);
  free(q);
  printf("posix_memalign bad %d\n", posix_memalign(&q, 3, 100));
  p = valloc(100);
  check("valloc", p, 4096);
  free(p);
  p = pvalloc(100);
  check("pvalloc", p, 4096);
  free(p);
  // Failures: the old block stays, errno says why.
  p = malloc(100);
  strcpy(p, "kept");
  errno = 0;
  void *volatile failed = realloc(p, SIZE_MAX / 2);
  printf("realloc failed %d %d %s\n", failed == NULL, errno == ENOMEM, (char *)p);
  errno = 0;
  failed = reallocarray(p, SIZE_MAX / 2, 16);
  printf("reallocarray failed %d %d %s\n", failed == NULL, errno == ENOMEM, (char *)p);
  errno = 0;
  failed = malloc(SIZE_MAX / 2);
  printf("malloc failed %d %d\n", failed == NULL, errno == ENOMEM);
  failed = calloc(SIZE_MAX / 2, 4);
  printf("calloc failed %d\n", failed == NULL);
  errno = 77;
  free(p);
  printf("errno %d\n", errno);
  p = malloc(100);
  p = realloc(p, 0);
  printf("realloc to 0: %d\n", p == NULL);
  free(NULL);
  return 3;
}
