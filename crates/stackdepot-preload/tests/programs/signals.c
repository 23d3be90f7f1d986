// A timer's handler allocates on an alternate stack, and sometimes leaves by siglongjmp.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

static sigjmp_buf out;
static volatile sig_atomic_t handled, busy, jumping;
static void *volatile kept;

// The C library's allocator is not reentrant: the handler allocates only outside of it.
static void on_timer(int number) {
  (void)number;
  handled++;
  if (busy) return;
  busy = 1;
  free(kept);
  kept = malloc(77);
  busy = 0;
  if (jumping && handled % 3 == 0) siglongjmp(out, 1);
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  stack_t stack = {.ss_sp = malloc(16384), .ss_size = 16384};
  sigaltstack(&stack, NULL);
  struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_ONSTACK | SA_RESTART};
  sigaction(SIGALRM, &action, NULL);
  struct itimerval every = {{0, 200}, {0, 200}};
  setitimer(ITIMER_REAL, &every, NULL);
  for (volatile int round = 0; round < 2; round++) {
    jumping = round;
    sigsetjmp(out, 1);
    while (handled < 1000 * (round + 1)) {
      busy = 1;
      void *volatile block = malloc(200);
      free(block);
      busy = 0;
      for (volatile int i = 0; i < 1000; i++) {}
    }
  }
  every = (struct itimerval){{0, 0}, {0, 0}};
  setitimer(ITIMER_REAL, &every, NULL);
  printf("handled %d\n", handled >= 2000);
  return 0;
}
