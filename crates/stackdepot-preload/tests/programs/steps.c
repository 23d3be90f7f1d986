// Steps through the recorder instruction by instruction (never through the C library's allocator). Between
// two instructions the handler allocates, or forks in either way; the child goes on with what was
// interrupted, and nothing it does may reach the parent's file but its ledger. Run bare, the
// handler finds no recorder to interrupt.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "own_recorder.h"

enum { TRAP_FLAG = 0x100, FORMS = 9, EVERY_ALLOC = 7, EVERY_FORK = 199, FORK_ROUNDS = 10 };

static volatile long seen, interrupted, failed_children, overwritten, changed_errno;
static volatile int forks, is_child;
static void *volatile blocks[4];
static void *volatile kept;

static void fork_here(ucontext_t *interrupted_at) {
  uint64_t before = sum_of_region();
  pid_t child = interrupted % 2 ? fork() : _Fork();
  if (child == 0) {
    is_child = 1;
    alarm(30);
    if (interrupted % 3)
      for (int i = 0; i < 20; i++) free(malloc(i));
    interrupted_at->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
    return;
  }
  int status = 0;
  waitpid(child, &status, 0);
  failed_children += status != 0;
  overwritten += sum_of_region() != before;
}

static void on_step(int number, siginfo_t *info, void *context) {
  ucontext_t *interrupted_at = context;
  uintptr_t ip = interrupted_at->uc_mcontext.gregs[REG_RIP];
  int saved_errno = errno;
  if (ip - start >= end - start || ++seen % (forks ? EVERY_FORK : EVERY_ALLOC)) return;
  interrupted++;
  if (forks) {
    fork_here(interrupted_at);
  } else {
    free(kept);
    kept = malloc(77);
  }
  errno = saved_errno;
}

static void set_trap_flag(void) {
  __asm__ volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc");
}
static void clear_trap_flag(void) {
  __asm__ volatile("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc");
}

__attribute__((noinline)) static void form(int which, int depth) {
  if (depth) {
    form(which, depth - 1);
    __asm__ volatile("");
    return;
  }
  switch (which) {
  case 0: blocks[0] = malloc(20); break;
  case 1: free(blocks[0]); break;
  case 2: blocks[1] = calloc(3, 5); break;
  case 3: blocks[1] = realloc(blocks[1], 300); break;
  case 4: free(blocks[1]); break;
  case 5: posix_memalign((void **)&blocks[2], 64, 10); break;
  case 6: blocks[2] = realloc(blocks[2], 0); break;
  case 7: blocks[3] = realloc(NULL, 8); break;
  case 8: free(blocks[3]); break;
  }
}

static void step_through_all(int round) {
  for (int which = 0; which < FORMS; which++) {
    errno = 12345;
    if (!is_child) set_trap_flag();
    form(which, (round * 3 + which) % 9);
    if (!is_child) clear_trap_flag();
    changed_errno += errno != 12345;
  }
}

int main(void) {
  find_recorder();
  struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
  sigaction(SIGTRAP, &action, NULL);
  for (int round = 0; round < 2; round++) step_through_all(round);
  free(kept);
  kept = NULL;
  forks = 1;
  for (int round = 0; round < FORK_ROUNDS; round++) {
    step_through_all(round);
    if (is_child) _exit(changed_errno != 0);
  }
  printf("failed children %ld, files written to by them %ld, errno changed %ld times\n", failed_children, overwritten,
         changed_errno);
  return start ? interrupted < 1000 || region < 0 : 0;
}
