/* Dies as its argument says: with memory that was freed, with a handler of its own, or in a child. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct node {
	struct node *next;
	long value;
};

static volatile long sink;

__attribute__((noinline)) char *obtain(size_t size) { char *block = calloc(1, size); __asm__ volatile("" : "+r"(block)); return block; }
__attribute__((noinline)) void give_back(void *block) { free(block); __asm__ volatile("" ::: "memory"); }
__attribute__((noinline)) void use(volatile char *block) { sink += block[5000]; }
__attribute__((noinline)) void use_node(struct node *volatile *place) { struct node *node = *place; sink += node->next->value; __asm__ volatile("" :: "r"(node)); }

static void freed(void) {
	char *volatile block = obtain(1 << 20); /* a mapping of its own, which free() takes away */
	give_back(block);
	use(block);
}

static void stale(void) {
	struct node *volatile node = (struct node *)obtain(sizeof *node);
	give_back(node); /* the allocator writes over the pointer in it */
	use_node(&node);
}

static void leave(int signal) { (void)signal; _exit(3); }

int main(int count, char **arguments) {
	const char *way = count > 1 ? arguments[1] : "";
	if (strcmp(way, "stale") == 0) stale();
	if (strcmp(way, "own") == 0) signal(SIGSEGV, leave);
	if (strcmp(way, "child") == 0 && fork() != 0) {
		wait(NULL);
		free(obtain(10));
		return 0;
	}
	freed();
	return 0;
}
