// Coroutines on malloc'ed and on mmapped stacks, which go away between switches.
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

static ucontext_t home, away;
static int made;

static void body(void) {
  for (int i = 0; i < 5; i++) {
    void *block = malloc(40 + i);
    swapcontext(&away, &home);
    free(block);
    made++;
  }
}

int main(void) {
  for (int round = 0; round < 500; round++) {
    size_t bytes = 65536;
    void *stack = round % 2 ? malloc(bytes)
                            : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    getcontext(&away);
    away.uc_stack.ss_sp = stack;
    away.uc_stack.ss_size = bytes;
    away.uc_link = &home;
    makecontext(&away, body, 0);
    for (int i = 0; i < 6; i++) {
      void *block = malloc(20);
      swapcontext(&home, &away);
      free(block);
    }
    if (round % 2) free(stack); else munmap(stack, bytes);
  }
  printf("%d\n", made);
  return 0;
}
