/* Holds one block, says so, and sleeps until it is told to go. Signal 10 makes it exit with 42. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void leave(int signal) { (void)signal; _exit(42); }

int main(void) {
	void *volatile block = malloc(4096);
	signal(SIGUSR1, leave);
	printf("%d %p\n", (int)getpid(), block);
	fflush(stdout);
	char byte;
	return read(0, &byte, 1) == 1 ? 3 : 0;
}
