/* Frees a block twice with the first free's event still in the ring; glibc aborts the program. */
#include <stdlib.h>

__attribute__((noinline)) void first(void *block) { free(block); __asm__ volatile("" ::: "memory"); }
__attribute__((noinline)) void second(void *block) { free(block); __asm__ volatile("" ::: "memory"); }

int main(void) {
	void *volatile block = malloc(100);
	first(block);
	second(block);
	return 0;
}
