// Hand-written code calls the allocator with a stack pointer that is no multiple of 16.
#include <stdio.h>
#include <stdlib.h>

// Like `function(first, second)`, 8 bytes off.
static void *call(void *function, long first, long second) {
  void *answer;
  __asm__ volatile(
      "mov %%rsp, %%r12\n\tand $-16, %%rsp\n\tsub $8, %%rsp\n\tcall *%1\n\tmov %%r12, %%rsp"
      : "=a"(answer), "+r"(function), "+D"(first), "+S"(second)
      :
      : "r12", "rcx", "rdx", "r8", "r9", "r10", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
        "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  return answer;
}

__attribute__((noinline)) static void forms(int depth) {
  if (depth) {
    forms(depth - 1);
    __asm__ volatile("");
    return;
  }
  void *block = call(malloc, 30, 0);
  block = call(realloc, (long)block, 100);
  call(free, (long)block, 0);
  call(free, (long)call(calloc, 3, 40), 0);
}

int main(void) {
  for (int i = 0; i < 100; i++) forms(i % 13);
  printf("done\n");
  return 0;
}
