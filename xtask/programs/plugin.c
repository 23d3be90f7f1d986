// A small shared object that many_threads.c loads and unloads over and over.
#include <stdlib.h>

void *plugin_take(size_t size) {
    void *volatile block = malloc(size);
    return block;
}
