/* Leaks one block from each of argv[1] different stacks: the turns taken on the way spell a number. */
#include <stdlib.h>

static void *volatile kept;

__attribute__((noinline)) static void turn(unsigned long path, int depth) {
	if (depth == 0)
		kept = malloc(32);
	else if (path & 1)
		turn(path >> 1, depth - 1);
	else
		turn(path >> 1, depth - 1);
	__asm__ volatile("" ::: "memory");
}

int main(int count, char **words) {
	unsigned long stacks = count > 1 ? strtoul(words[1], NULL, 10) : 0;
	for (unsigned long path = 0; path < stacks; path++)
		turn(path, 20);
	return 0;
}
