// A timer interrupts the recorder itself (never the C library's allocator); the handler then
// allocates, forks, or leaves by siglongjmp. While a child runs nothing may write to the parent's
// file but its ledger. Run bare, the handler finds no recorder to interrupt.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "own_recorder.h"

static sigjmp_buf out;
static volatile int hits, jumps, failed_children, overwritten;
static void *volatile kept;

static void on_timer(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  uintptr_t at = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
  if (at - start >= end - start) return;
  hits++;
  free(kept);
  kept = malloc(77);
  if (hits % 10 == 0) {
    int turn = hits / 10;
    uint64_t before = sum_of_region();
    pid_t child = turn % 5 < 2 ? _Fork() : fork();
    if (child == 0) {
      // Of the children some have events of their own before they go on with what was interrupted.
      if (turn % 3)
        for (int i = 0; i < 100; i++) free(malloc(i));
      if (turn % 4 == 0) _exit(0);
      sigset_t timer;
      sigemptyset(&timer);
      sigaddset(&timer, SIGALRM);
      sigprocmask(SIG_BLOCK, &timer, NULL);
      hits = -1;
      return;
    }
    int status = 0;
    waitpid(child, &status, 0);
    failed_children += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    overwritten += sum_of_region() != before;
  }
  if (hits % 7 == 0) {
    jumps++;
    siglongjmp(out, 1);
  }
}

__attribute__((noinline)) static void churn(int depth) {
  if (depth > 0) { churn(depth - 1); return; }
  void *volatile block = malloc(64);
  free(block);
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  find_recorder();
  struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigaction(SIGALRM, &action, NULL);
  struct itimerval every = {{0, 150}, {0, 150}};
  setitimer(ITIMER_REAL, &every, NULL);
  sigsetjmp(out, 1);
  for (volatile int i = 0; (start ? hits < 1000 : i < 1000) && hits >= 0; i++) churn(i % 20);
  if (hits < 0) _exit(0);
  every = (struct itimerval){{0, 0}, {0, 0}};
  setitimer(ITIMER_REAL, &every, NULL);
  // Afterwards everything is as before.
  for (int i = 0; i < 1000; i++) churn(3);
  printf("failed children %d, files written to by them %d\n", failed_children, overwritten);
  return start ? hits < 1000 || jumps < 100 || region < 0 : 0;
}
