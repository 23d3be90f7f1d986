// First events in awkward places: in a handler on a small stack, and of a program whose exec ends
// threads that record.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void work(void) {
  for (int i = 0; i < 100; i++) {
    void *volatile block = malloc(50 + i);
    free(block);
  }
}

static void in_handler(int number) {
  (void)number;
  work();
}

// A stack of `bytes` with nothing below it.
static void on_small_stack(size_t bytes) {
  char *pages = mmap(NULL, 8192 + bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(pages + 8192, bytes, PROT_READ | PROT_WRITE);
  stack_t stack = {.ss_sp = pages + 8192, .ss_size = bytes};
  struct sigaction action = {.sa_handler = in_handler, .sa_flags = SA_ONSTACK};
  sigaltstack(&stack, NULL);
  sigaction(SIGUSR1, &action, NULL);
  raise(SIGUSR1);
}

static volatile int storming = 1;

static void *storm(void *nothing) {
  while (storming) work();
  return nothing;
}

static void *execute(void *nothing) {
  (void)nothing;
  usleep(2000);
  execl("/bin/true", "true", NULL);
  _exit(99);
}

static void exec_in_a_thread(void) {
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, i == 3 ? execute : storm, NULL);
  storm(NULL);
}

static void expect(const char *name, pid_t child, int wanted) {
  int status = 0;
  waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != wanted) printf("%s: status %x\n", name, status);
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  alarm(60);
  pid_t child = fork();
  if (child == 0) { on_small_stack(8192); _exit(1); }
  expect("first event on a small stack", child, 1);
  for (int i = 0; i < 5; i++) {
    child = fork();
    if (child == 0) exec_in_a_thread();
    expect("exec in a thread", child, 0);
  }
  return 0;
}
