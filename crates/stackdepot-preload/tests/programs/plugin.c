// A library that is loaded and unloaded again and again.
#include <stdlib.h>
__attribute__((noinline)) void *plugin_allocate(int size) { return malloc(size); }
__attribute__((noinline)) void plugin_release(void *block) { free(block); }
