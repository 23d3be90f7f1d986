// Children that may not make a file: no privileges, seccomp, limits of file size and memory, closed
// descriptors.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void work(void) {
  for (int i = 0; i < 1000; i++) {
    void *volatile p = malloc(100 + i);
    free(p);
  }
}

static void in_child(const char *name, void (*confine)(void), void (*leave)(int)) {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    confine();
    work();
    leave(21);
  }
  int status = 0;
  waitpid(child, &status, 0);
  printf("%s: %s %d\n", name, WIFEXITED(status) ? "exited" : "killed",
         WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

static void raw_exit(int status) { syscall(SYS_exit, status); }
static void nothing(void) {}
static void drop(void) {
  if (geteuid() == 0 && (setgid(65534) || setuid(65534))) _exit(90);
}
static void small_files(void) {
  struct rlimit limit = {4096, 4096};
  setrlimit(RLIMIT_FSIZE, &limit);
}
static void no_memory(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = 4096;
  setrlimit(RLIMIT_AS, &limit);
}
static void close_all(void) {
  for (int fd = 3; fd < 1024; fd++) close(fd);
}
static void strict(void) {
  free(malloc(100000)); // the heap may not grow any more
  prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
}
static void filter(void) {
  // Everything but memory and leaving kills.
  struct sock_filter code[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_brk, 6, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 5, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 4, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 3, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 2, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) _exit(91);
}
static void filter_by_syscall(void) {
  struct sock_filter code[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) _exit(92);
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  work();
  in_child("free", nothing, _exit);
  in_child("nobody", drop, _exit);
  in_child("small files", small_files, _exit);
  in_child("no memory", no_memory, _exit);
  in_child("closed", close_all, _exit);
  in_child("strict", strict, raw_exit);
  in_child("filter", filter, _exit);
  in_child("filter by syscall", filter_by_syscall, _exit);
  return 4;
}
