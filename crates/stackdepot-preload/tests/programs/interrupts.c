// A timer interrupts the recorder itself (never the C library's allocator); the handler then
// allocates, forks, or leaves by siglongjmp. Run bare, the handler finds no recorder to interrupt.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf out;
static uintptr_t start, end;
static volatile int hits, jumps, failed_children;
static void *volatile kept;

static void on_timer(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  uintptr_t at = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
  if (at - start >= end - start) return;
  hits++;
  free(kept);
  kept = malloc(77);
  if (hits % 50 == 0) {
    pid_t child = fork();
    if (child == 0) {
      // Half of the children go on with what was interrupted, half leave here.
      for (int i = 0; i < 100; i++) free(malloc(i));
      if (hits % 100) _exit(0);
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
  }
  if (hits % 7 == 0) {
    jumps++;
    siglongjmp(out, 1);
  }
}

static void find_recorder(void) {
  char line[512];
  FILE *maps = fopen("/proc/self/maps", "r");
  while (maps && fgets(line, sizeof line, maps))
    if (strstr(line, "r-xp") && strstr(line, "libstackdepot_preload"))
      sscanf(line, "%lx-%lx", &start, &end);
  if (maps) fclose(maps);
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
  printf("failed children %d\n", failed_children);
  return start ? hits < 1000 || jumps < 100 : 0;
}
