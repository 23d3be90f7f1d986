// Forks of every kind, from several threads that never stop allocating.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int stop;
extern char **environ;
extern pid_t _Fork(void);

static void *storm(void *nothing) {
  while (!stop) {
    void *volatile blocks[16];
    for (int i = 0; i < 16; i++) blocks[i] = malloc(16 + 32 * i);
    for (int i = 0; i < 16; i++) free(blocks[i]);
  }
  return nothing;
}

static int work(int status) {
  void *volatile kept = NULL;
  for (int i = 0; i < 1000; i++) {
    void *volatile p = malloc(100 + i);
    if (i == 500) kept = p; else free(p);
  }
  return status + (kept == NULL);
}

static void expect(const char *name, pid_t child, int wanted) {
  int status = 0;
  waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != wanted)
    printf("%s: status %x\n", name, status);
}

int main(void) {
  pthread_t threads[3];
  setvbuf(stdout, NULL, _IONBF, 0);
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, storm, NULL);
  for (int i = 0; i < 20; i++) {
    pid_t child = fork();
    if (child == 0) _exit(work(11));
    expect("fork", child, 11);
  }
  stop = 1;
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  // Without the C library's handlers only a quiet parent's child may allocate.
  pid_t child = _Fork();
  if (child == 0) _exit(work(12));
  expect("_Fork", child, 12);
  child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
  if (child == 0) _exit(work(13));
  expect("clone", child, 13);
  child = vfork();
  if (child == 0) { free(malloc(123)); execl("/bin/true", "true", NULL); _exit(99); }
  expect("vfork", child, 0);
  char *arguments[] = {"sh", "-c", "exit 14", NULL};
  if (posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, environ)) printf("spawn failed\n");
  expect("posix_spawn", child, 14);
  child = fork();
  if (child == 0) {
    pid_t grandchild = fork();
    if (grandchild == 0) _exit(work(15));
    expect("grandchild", grandchild, 15);
    _exit(work(16));
  }
  expect("nested fork", child, 16);
  printf("%s\n", "done");
  return work(17);
}
