/* Leaks 1000 blocks of 64 bytes on a second thread and 10 of 1 MiB on the first, frees 10^6 blocks,
 * and prints the last block that was freed and an address inside a live one. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void *volatile kept[1010];
static void *volatile last_freed;

__attribute__((noinline)) void leak_a(int i) { kept[i] = malloc(64); __asm__ volatile("" ::: "memory"); }
__attribute__((noinline)) void leak_b(int i) { kept[1000 + i] = malloc(1 << 20); __asm__ volatile("" ::: "memory"); }
__attribute__((noinline)) void *obtain(int size) { void *block = malloc(size); __asm__ volatile("" ::: "memory"); return block; }
__attribute__((noinline)) void give_back(void *block) { last_freed = block; free(block); __asm__ volatile("" ::: "memory"); }

__attribute__((noinline)) void churn(void) {
	for (int i = 0; i < 1000000; i++)
		give_back(obtain(16 + i % 512));
}

static void *second_thread(void *argument) {
	for (int i = 0; i < 1000; i++)
		leak_a(i);
	return argument;
}

int main(void) {
	static char line[4096];
	setvbuf(stdout, line, _IOFBF, sizeof line);
	pthread_t thread;
	pthread_create(&thread, NULL, second_thread, NULL);
	for (int i = 0; i < 10; i++)
		leak_b(i);
	churn();
	pthread_join(thread, NULL);
	give_back(obtain(777));
	printf("%p %p\n", (void *)last_freed, (char *)kept[7] + 10);
	return 0;
}
