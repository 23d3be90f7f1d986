// Dies by a signal, in the way that the argument names.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

// Large enough for a mapping of its own, which free() takes away.
enum { LARGE = 1 << 20, OFFSET = 5000 };

static volatile int sink;

__attribute__((noinline)) static char *obtain(void) { return malloc(LARGE); }
__attribute__((noinline)) static void give_back(char *block) { free(block); __asm__ volatile(""); }
__attribute__((noinline)) static void use(volatile char *block) { sink += block[OFFSET]; }

static void freed(void) {
  char *volatile block = obtain();
  give_back(block);
  use(block);
}

struct node {
  struct node *next;
  long value;
};
__attribute__((noinline)) static long second_value(struct node *node) { return node->next->value; }
// The allocator has written over the pointer in the freed block.
static void stale(void) {
  struct node *volatile node = calloc(1, sizeof *node);
  give_back((char *)node);
  sink = second_value(node);
}

static void written(void) {
  char *volatile block = obtain();
  give_back(block);
  block[OFFSET] = 1;
}

static void guarded(void) {
  char *volatile block = obtain();
  uintptr_t page = (uintptr_t)(block + OFFSET) / 4096 * 4096;
  mprotect((void *)page, 4096, PROT_READ);
  block[OFFSET] = 1;
}

static void null(void) { use(NULL); }
static void jump(void) {
  void (*volatile nowhere)(void) = NULL;
  nowhere();
  sink++;
}
static void not_canonical(void) { use((char *)0x4141414141414141); }
static void garbage(void) {
  free(obtain());
  free((void *)0x1010);
}
static void twice(void) {
  void *volatile block = malloc(100);
  free(block);
  free(block);
}
static void trap(void) { __builtin_trap(); }
static void breakpoint(void) { __asm__ volatile("int3"); }
static void divide(void) {
  volatile int zero = 0;
  sink = 100 / zero;
}
static void killed(void) {
  kill(getpid(), SIGSEGV);
  pause();
}

static void *in_thread(void *argument) {
  freed();
  return NULL;
}
static void thread(void) {
  pthread_t id;
  pthread_create(&id, NULL, in_thread, NULL);
  pthread_join(id, NULL);
}

static void deeper(volatile int *depth) {
  volatile char room[1000];
  room[0] = *depth;
  *depth += 1;
  deeper(depth);
  sink += room[0];
}
static void overflow(void) {
  int depth = 0;
  deeper(&depth);
}
static void overflow_seen(void) {
  stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = SIGSTKSZ};
  sigaltstack(&stack, NULL);
  overflow();
}

static void alternate_gone(void) {
  void *memory = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack_t stack = {.ss_sp = memory, .ss_size = 1 << 16};
  sigaltstack(&stack, NULL);
  munmap(memory, 1 << 16);
  abort();
}

static void leave(int signal) {
  puts("mine");
  _exit(3);
}
static void own(void) {
  signal(SIGSEGV, leave);
  null();
}
static void pass_on(int signal) {
  static const struct sigaction standard = {.sa_handler = SIG_DFL};
  sigaction(signal, &standard, NULL);
}
static void passed_on(void) {
  struct sigaction action = {.sa_handler = pass_on};
  sigaction(SIGSEGV, &action, NULL);
  freed();
}

static const char *name(void *handler) {
  return handler == SIG_DFL ? "default" : handler == SIG_IGN ? "ignored" : handler == leave ? "own" : "foreign";
}
static void ask(void) {
  struct sigaction action;
  sigaction(SIGSEGV, NULL, &action);
  // A default handler's flags mean nothing.
  int flags = action.sa_handler == SIG_DFL ? 0 : action.sa_flags;
  printf("%s %d %d\n", name(action.sa_handler), flags, sigismember(&action.sa_mask, SIGINT));
}
static void asked(void) {
  ask();
  printf("%s\n", name(signal(SIGSEGV, leave)));
  ask();
  printf("%s\n", name(signal(SIGSEGV, SIG_DFL)));
  ask();
  printf("%s\n", name(signal(SIGSEGV, SIG_IGN)));
  kill(getpid(), SIGSEGV);
  printf("%s\n", name(sigset(SIGSEGV, SIG_DFL)));
  printf("%s\n", name(ssignal(SIGABRT, SIG_DFL)));
  struct sigaction default_action = {.sa_handler = SIG_DFL}, old;
  sigaction(SIGSEGV, &default_action, &old);
  printf("%s\n", name(old.sa_handler));
  ask();
  fflush(stdout);
  null();
}

static void wait_for(const char *who, pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  printf("%s %d\n", who, WIFSIGNALED(status) ? WTERMSIG(status) : -1);
  fflush(stdout);
}
// One child dies before its first event, one after; the parent goes on.
static void children(void) {
  pid_t child = fork();
  if (child == 0) null();
  wait_for("at once", child);
  child = fork();
  if (child == 0) freed();
  wait_for("later", child);
  child = vfork();
  if (child == 0) raise(SIGSEGV);
  wait_for("borrowing", child);
  abort();
}
static void confined(void) {
  prctl(PR_SET_SECCOMP, 1);
  null();
}

static const struct {
  const char *name;
  void (*die)(void);
} WAYS[] = {
  {"freed", freed}, {"stale", stale}, {"written", written}, {"guarded", guarded}, {"null", null}, {"jump", jump},
  {"not-canonical", not_canonical}, {"garbage", garbage}, {"twice", twice}, {"abort", abort}, {"trap", trap},
  {"breakpoint", breakpoint}, {"divide", divide}, {"killed", killed}, {"thread", thread}, {"overflow", overflow},
  {"overflow-seen", overflow_seen}, {"alternate-gone", alternate_gone}, {"own", own}, {"passed-on", passed_on}, {"asked", asked},
  {"children", children}, {"confined", confined},
};

int main(int count, char **arguments) {
  struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  setvbuf(stdout, NULL, _IONBF, 0);
  for (unsigned i = 0; i < sizeof WAYS / sizeof *WAYS; i++)
    if (count > 1 && strcmp(arguments[1], WAYS[i].name) == 0) WAYS[i].die();
  return 9;
}
