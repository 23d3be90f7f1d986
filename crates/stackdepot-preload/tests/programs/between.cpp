// One signal for each call, in call n at the n-th instruction of the recorder: its handler allocates. What
// the operator itself allocates must be taken for its own nevertheless. Run bare, nothing is interrupted.
#include <csignal>
#include <new>
#include <ucontext.h>

#include "own_recorder.h"

enum { ROUNDS = 400, TRAP_FLAG = 0x100 };

static volatile long left;

static void on_step(int, siginfo_t *, void *context) {
  auto *registers = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
  if (static_cast<uintptr_t>(registers[REG_RIP]) - start >= end - start || left-- > 0) return;
  registers[REG_EFL] &= ~TRAP_FLAG;
  free(malloc(77));
}

int main() {
  find_recorder();
  struct sigaction action = {};
  action.sa_sigaction = on_step;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGTRAP, &action, nullptr);
  for (int round = 0; round < ROUNDS; round++) {
    left = round;
    __asm__ volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc");
    void *volatile block = operator new(1234);
    __asm__ volatile("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc");
    operator delete(block);
  }
  puts("done");
}
