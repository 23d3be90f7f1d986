// Frees that the C library does not notice: a block twice, past its cache. And one that is as it
// should be: a child gives back what its parent allocated.
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile inherited;

static void free_once(void *block) { free(block); }
static void free_again(void *block) { free(block); }

int main(void) {
  void *volatile cached[7];
  for (int i = 0; i < 7; i++) cached[i] = malloc(40);
  void *volatile twice = malloc(40);
  void *volatile between = malloc(40);
  inherited = malloc(24);
  for (int i = 0; i < 7; i++) free(cached[i]);
  free_once(twice);
  free_once(between);
  free_again(twice);
  pid_t child = fork();
  if (child == 0) {
    free(inherited);
    _exit(0);
  }
  int status = 1;
  waitpid(child, &status, 0);
  _exit(status != 0);
}
