// Sites of known sizes and counts, by new, malloc and realloc, after exceptions that passed through
// the hooks; the same again in a fork's child.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sys/wait.h>
#include <unistd.h>

#define SITE extern "C" __attribute__((noinline)) void
static volatile size_t huge = SIZE_MAX / 4;
static void *small_blocks[100000], *large_blocks[40], *grown;

SITE small_site() { for (void *&p : small_blocks) p = operator new(300); }
SITE large_site() { for (void *&p : large_blocks) p = malloc(1 << 20); }
SITE churn_site() { for (int i = 0; i < 1000000; i++) free(malloc(200)); }
SITE grown_site() { for (int i = 1; i <= 5000; i++) grown = realloc(grown, i * 100); }
SITE drop_site() { for (void *&p : small_blocks) operator delete(p); for (void *&p : large_blocks) free(p); }

static void work() {
  for (int i = 0; i < 100; i++) {
    try { small_blocks[0] = operator new(huge); } catch (const std::bad_alloc &) {}
  }
  malloc(SIZE_MAX);
  calloc(SIZE_MAX, SIZE_MAX);
  small_site();
  large_site();
  churn_site();
  grown_site();
}

int main(int argc, char **argv) {
  work();
  if (argc > 1) {
    pid_t child = fork();
    if (child == 0) {
      drop_site();  // the parent's blocks
      free(grown);
      grown = nullptr;
      work();
      _exit(0);
    }
    waitpid(child, nullptr, 0);
  }
  puts("done");
}
