// 500 times: load a library, allocate through it, unload it, while another thread allocates.
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static atomic_int stop;
static void *storm(void *nothing) {
  while (!stop) free(malloc(48));
  return nothing;
}

int main(int count, char **arguments) {
  pthread_t thread;
  if (count < 2) return 90;
  pthread_create(&thread, NULL, storm, NULL);
  int good = 0;
  for (int i = 0; i < 500; i++) {
    void *library = dlopen(arguments[1], RTLD_NOW);
    if (!library) { puts(dlerror()); break; }
    void *(*allocate)(int) = (void *(*)(int))dlsym(library, "plugin_allocate");
    void (*release)(void *) = (void (*)(void *))dlsym(library, "plugin_release");
    void *block = allocate(100 + i);
    release(block);
    good += dlclose(library) == 0;
  }
  stop = 1;
  pthread_join(thread, NULL);
  printf("%d\n", good);
  return 0;
}
