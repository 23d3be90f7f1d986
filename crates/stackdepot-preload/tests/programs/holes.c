// Coroutine stacks that are unmapped, with smaller ones in their place and nothing above these; the
// frame pointer of who allocates there points into the hole.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { PAGE = 4096, PAGES = 64 };

static ucontext_t home, away;
static uintptr_t frame_pointer;
static int depth;

__attribute__((noinline)) static void allocate_deep(int depth) {
  volatile char room[1500];
  room[0] = 1;
  if (depth)
    allocate_deep(depth - 1);
  else
    free(malloc(10));
  room[1] = 2;
}

__attribute__((noinline)) static void allocate_with(uintptr_t frame_pointer) {
  __asm__ volatile(
      "push %%rbp\n\tsub $8, %%rsp\n\tmov %0, %%rbp\n\tmov $40, %%edi\n\tcall malloc\n\tmov %%rax, %%rdi\n\tcall free\n\t"
      "add $8, %%rsp\n\tpop %%rbp"
      :
      : "r"(frame_pointer)
      : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
}

static void body(void) {
  allocate_deep(depth);
  if (frame_pointer) allocate_with(frame_pointer);
}

static void run_on(char *stack, int pages) {
  getcontext(&away);
  away.uc_stack.ss_sp = stack;
  away.uc_stack.ss_size = pages * PAGE;
  away.uc_link = &home;
  makecontext(&away, body, 0);
  swapcontext(&home, &away);
}

static char *map(char *place, int pages, int protection) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (place ? MAP_FIXED : 0);
  return mmap(place, pages * PAGE, protection, flags, -1, 0);
}

int main(void) {
  char *base = map(NULL, PAGES, PROT_NONE);
  for (int round = 0; round < 300; round++) {
    int is_small = round % 2;
    int pages = is_small ? 2 : PAGES - 2;
    int at = is_small ? round / 2 % (PAGES - 4) + 1 : 1;
    munmap(base + PAGE, (PAGES - 1) * PAGE);
    char *stack = map(base + at * PAGE, pages, PROT_READ | PROT_WRITE);
    depth = is_small ? 1 : 100;
    frame_pointer = is_small ? (uintptr_t)stack + pages * PAGE + round % 20 * 8 : 0;
    run_on(stack, pages);
  }
  printf("done\n");
  return 0;
}
