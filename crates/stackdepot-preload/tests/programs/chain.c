// Executes itself N times in the same process, allocating in each life.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int count, char **arguments) {
  int left = count > 1 ? atoi(arguments[1]) : 5;
  for (int i = 0; i < 100; i++) {
    void *volatile block = malloc(64);
    if (i % 2) free(block);
  }
  if (left == 0) { puts("end of the chain"); return 6; }
  char number[16];
  snprintf(number, sizeof number, "%d", left - 1);
  execl("/proc/self/exe", arguments[0], number, NULL);
  return 91;
}
