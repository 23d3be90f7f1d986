// Becomes a daemon that closes all descriptors, works, and reports through a pipe made before.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
  int ends[2];
  if (pipe(ends)) return 90;
  pid_t child = fork();
  if (child == 0) {
    setsid();
    if (fork()) _exit(0);
    for (int fd = 0; fd < 1024; fd++) if (fd != ends[1]) close(fd);
    open("/dev/null", O_RDWR);
    for (int i = 0; i < 10000; i++) {
      void *volatile block = malloc(50 + i % 100);
      if (i % 100) free(block);
    }
    if (write(ends[1], "worked", 6) != 6) _exit(92);
    _exit(0);
  }
  close(ends[1]);
  waitpid(child, NULL, 0);
  char text[16] = {0};
  if (read(ends[0], text, sizeof text - 1) < 0) return 93;
  puts(text);
  return 8;
}
