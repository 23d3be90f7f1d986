// A timer interrupts the recorder itself (never the C library's allocator); the handler then
// allocates, forks, or leaves by siglongjmp. While a child runs nothing may write to the parent's
// file but its ledger. Run bare, the handler finds no recorder to interrupt.
#define _GNU_SOURCE
#include <fcntl.h>
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
static volatile int hits, jumps, failed_children, overwritten;
static void *volatile kept;
static int region = -1;

enum { PAGE = 4096 };

// A sum over the parent's file without its second page, the ledger, in which children are entered.
static uint64_t sum_of_region(void) {
  static uint64_t words[16 * PAGE];
  uint64_t sum = 0;
  off_t at = 0;
  while ((at = lseek(region, at, SEEK_DATA)) >= 0) {
    ssize_t bytes = pread(region, words, sizeof words, at);
    for (ssize_t i = 0; i < bytes / 8; i++)
      if (at / PAGE + i * 8 / PAGE != 1) sum = (sum ^ words[i]) * 0x100000001b3 + (sum >> 29);
    at += bytes;
  }
  return sum;
}

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

static void find_recorder(void) {
  char line[512];
  FILE *maps = fopen("/proc/self/maps", "r");
  while (maps && fgets(line, sizeof line, maps))
    if (strstr(line, "r-xp") && strstr(line, "libstackdepot_preload"))
      sscanf(line, "%lx-%lx", &start, &end);
  if (maps) fclose(maps);
  if (start) region = open(getenv("STACKDEPOT_RUN"), O_RDONLY);
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
