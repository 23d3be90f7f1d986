// Threads allocate and free without pause while the main thread forks, again and again; every
// process counts what it does and says so. Usage: fork_storm FORKS [PLUGIN], which a thread then
// loads and unloads all the time. Lines on stdout:
//   made PID EVENTS COUNT SIZE KEPT   by a child about to end (EVENTS 0: not exactly known)
//   go                                children have ended: waits for a byte on stdin
//   parent EVENTS                     the last line
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 3, KEPT = 16 };

static atomic_int stop;
static atomic_ulong events;
static const char *plugin;

static void say(const char *line, int length) {
  if (write(1, line, length) != length) _exit(90);
}

__attribute__((noinline)) static void *take(unsigned depth, uint64_t path, size_t size);

__attribute__((noinline)) static void *left(unsigned depth, uint64_t path, size_t size) {
  void *volatile block = take(depth, path, size);
  return block;
}

__attribute__((noinline)) static void *right(unsigned depth, uint64_t path, size_t size) {
  void *volatile block = take(depth, path, size);
  return block;
}

static void *take(unsigned depth, uint64_t path, size_t size) {
  if (depth == 0) return malloc(size);
  return (path & 1 ? left : right)(depth - 1, path >> 1, size);
}

static void *storm(void *seed) {
  uint64_t state = (uintptr_t)seed * 0x9e3779b97f4a7c15u + 1;
  void *volatile kept[KEPT] = {0};
  unsigned long made = 0;
  while (!stop) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    void *volatile *place = &kept[state % KEPT];
    made += 1 + (*place != NULL);
    free(*place);
    *place = take(state >> 20 & 7, state >> 24, 1 + (state >> 40 & 511));
  }
  for (int i = 0; i < KEPT; i++) {
    made += kept[i] != NULL;
    free(kept[i]);
  }
  events += made;
  return NULL;
}

static void *reload(void *nothing) {
  while (!stop) {
    void *loaded = dlopen(plugin, RTLD_NOW);
    if (!loaded) _exit(91);
    dlclose(loaded);
  }
  return nothing;
}

struct load {
  unsigned long count, size, kept;
};

// One stack: as many blocks of that size, of which the first few stay.
__attribute__((noinline)) static void *site(void *given) {
  struct load *load = given;
  for (unsigned long i = 0; i < load->count; i++) {
    void *volatile block = malloc(load->size);
    if (i >= load->kept) free(block);
  }
  return NULL;
}

static void child(unsigned long number, int generation, void *inherited) {
  struct load load = {200 + number % 100, 1000 + number, 5 + number % 7};
  if (generation == 1 && number % 8 == 3) {
    pid_t grandchild = fork();
    if (grandchild == 0) child(number + 5000, 2, inherited);
    waitpid(grandchild, NULL, 0);
  }
  unsigned long made = 2 * load.count - load.kept + 1;
  free(inherited);
  if (number % 4 == 1) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, site, &load)) _exit(92);
    pthread_join(thread, NULL);
    made = 0;
  } else {
    site(&load);
  }
  char line[128];
  say(line, sprintf(line, "made %d %lu %lu %lu %lu\n", getpid(), made, load.count, load.size, load.kept));
  if (number % 3 == 0) kill(getpid(), SIGKILL);
  _exit(0);
}

static void fork_once(unsigned long number) {
  void *volatile inherited = malloc(24);
  // The timer then interrupts the other threads wherever they are.
  usleep(50 + number * 7 % 200);
  pid_t pid = fork();
  if (pid == 0) child(number, 1, inherited);
  if (pid < 0) _exit(93);
  free(inherited);
  events += 2;
  int status = 0;
  waitpid(pid, &status, 0);
  int killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  if (number % 3 == 0 ? !killed : status != 0) _exit(94);
  say("go\n", 3);
  char byte;
  if (read(0, &byte, 1) != 1) _exit(95);
}

int main(int count, char **arguments) {
  pthread_t threads[THREADS], reloader;
  unsigned long forks = strtoul(arguments[1], NULL, 10);
  plugin = count > 2 ? arguments[2] : NULL;
  for (uintptr_t i = 0; i < THREADS; i++)
    if (pthread_create(&threads[i], NULL, storm, (void *)i)) return 1;
  if (plugin && pthread_create(&reloader, NULL, reload, NULL)) return 1;
  for (unsigned long number = 0; number < forks; number++) fork_once(number);
  stop = 1;
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  if (plugin) pthread_join(reloader, NULL);
  char line[64];
  say(line, sprintf(line, "parent %lu\n", (unsigned long)events));
  return 0;
}
