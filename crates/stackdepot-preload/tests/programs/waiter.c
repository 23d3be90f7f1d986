// A library whose constructor, under the loader's lock, waits for a thread that uses what it needs at
// its start for the first time in the process.
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static sem_t is_started;

static void *run(void *unused) {
  (void)unused;
  signal(SIGUSR1, SIG_IGN);
  sigset(SIGUSR2, SIG_IGN);
  __sysv_signal(SIGURG, SIG_IGN);
  prctl(PR_SET_NAME, "waiter");
  syscall(SYS_gettid);
  sem_post(&is_started);
  return NULL;
}

__attribute__((constructor)) static void start(void) {
  pthread_t thread;
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 10;
  pthread_create(&thread, NULL, run, NULL);
  puts(sem_timedwait(&is_started, &until) == 0 ? "started" : "stuck behind the loader's lock");
  fflush(stdout);
  pthread_detach(thread);
}
