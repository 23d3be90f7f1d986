// A thousand threads at 256-deep stacks, and 500 dlopen/dlclose of the plugins named on the
// command line (bar 8). Prints "ready" when all of it has happened and all threads still live, and
// waits for a line on stdin, so that its memory can be compared with a bare run's.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { THREADS = 1000, DEPTH = 256, RELOADS = 500, BLOCKS = 20 };

static pthread_barrier_t all_done, may_end;

__attribute__((noinline)) static void *deep(int depth, size_t size) {
    void *volatile block = depth > 1 ? deep(depth - 1, size) : malloc(size);
    return block;
}

static void *thread_main(void *given) {
    size_t number = (size_t)given;
    void *kept[BLOCKS];
    for (size_t index = 0; index < BLOCKS; index++)
        kept[index] = deep(DEPTH - (int)(number % 16), 32 + index);
    pthread_barrier_wait(&all_done);
    pthread_barrier_wait(&may_end);
    for (size_t index = 0; index < BLOCKS; index++)
        free(kept[index]);
    return NULL;
}

static int reload(char **plugins, int plugin_count) {
    for (int done = 0; done < RELOADS; done++) {
        void *plugin = dlopen(plugins[done % plugin_count], RTLD_NOW | RTLD_LOCAL);
        if (!plugin) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        void *(*take)(size_t) = (void *(*)(size_t))dlsym(plugin, "plugin_take");
        free(take(100 + (size_t)done));
        dlclose(plugin);
    }
    return 0;
}

int main(int argc, char **argv) {
    pthread_t threads[THREADS];
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 * 1024);
    pthread_barrier_init(&all_done, NULL, THREADS + 1);
    pthread_barrier_init(&may_end, NULL, THREADS + 1);
    for (size_t number = 0; number < THREADS; number++)
        if (pthread_create(&threads[number], &small, thread_main, (void *)number))
            return 1;
    if (argc > 1 && reload(argv + 1, argc - 1))
        return 1;
    pthread_barrier_wait(&all_done);
    char line[8] = "ready\n";
    if (write(STDOUT_FILENO, line, 6) != 6 || read(STDIN_FILENO, line, 1) < 0)
        return 1;
    pthread_barrier_wait(&may_end);
    for (int number = 0; number < THREADS; number++)
        pthread_join(threads[number], NULL);
    return 0;
}
