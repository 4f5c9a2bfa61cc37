/*
 * spawn-time PROGRAM: how long PROGRAM takes from posix_spawn to its end, as a container runtime sees it.
 * In: the program's standard input and environment are ours. Out: microseconds, a newline, then what the program printed;
 * our exit code is the program's. Input and output must each fit into a pipe (64 KiB): the input is there before the program
 * starts, the output is read after its end, so that nobody else's speed is measured.
 * Exists because Node.js needs 2 ms to start a child, more than what is measured.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now_us(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: spawn-time PROGRAM\n");
    return 2;
  }
  int input[2];
  int output[2];
  if (pipe2(input, O_CLOEXEC) < 0 || pipe2(output, O_CLOEXEC) < 0 || fcntl(input[1], F_SETFL, O_NONBLOCK) < 0) {
    perror("pipe");
    return 2;
  }
  char text[4096];
  for (ssize_t got; (got = read(STDIN_FILENO, text, sizeof text)) > 0;) {
    if (write(input[1], text, (size_t)got) != got) {
      perror("input");
      return 2;
    }
  }
  close(input[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);

  pid_t child;
  int status;
  double start = now_us();
  int error = posix_spawn(&child, argv[1], &actions, NULL, argv + 1, environ);
  if (error != 0) {
    fprintf(stderr, "%s: %s\n", argv[1], strerror(error));
    return 2;
  }
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  double took = now_us() - start;

  close(output[1]);
  printf("%.1f\n", took);
  for (ssize_t got; (got = read(output[0], text, sizeof text)) > 0;) fwrite(text, 1, (size_t)got, stdout);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
