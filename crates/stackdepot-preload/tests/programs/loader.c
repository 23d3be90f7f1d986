// What the loader keeps for the program: its last error, and its lock. argv[1]: a library whose
// constructor waits for a thread.
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>

int main(int argc, char **argv) {
  dlopen("/no/such/library", RTLD_NOW);
  signal(SIGPIPE, SIG_IGN);
  puts(dlerror());
  puts(argc == 2 && dlopen(argv[1], RTLD_NOW) ? "opened" : dlerror());
  return 0;
}
