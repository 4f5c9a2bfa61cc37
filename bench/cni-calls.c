/*
 * cni-calls COMMAND PROGRAM PARALLEL FROM TO [connect]: calls a CNI plugin for the containers b-FROM to b-(TO-1), up to
 * PARALLEL at a time, each in the namespace /run/netns/b-N.
 *
 * In: the configuration on standard input. Out: a line per call, microseconds from posix_spawn to the plugin's end, in the order in
 * which they ended; last `total` and the microseconds of all together. With `connect` (and PARALLEL 1) a second number on
 * each line: those of a TCP connection made right after the plugin's end, from here to the container: a lost SYN makes that a
 * second. `namespaces` as COMMAND makes the namespaces, and calls nothing.
 * Never: a failed call that is counted (it ends with what the plugin printed). Exists because Node.js needs 2 ms to start a
 * child, more than what is measured.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PARALLEL_MAX 128
#define PORT 7777

struct running {
  pid_t pid;
  int number;
  int output;
  double start;
};

static struct running calls[PARALLEL_MAX];
static int config_fd;

static void fail(const char *what) {
  fprintf(stderr, "cni-calls: %s: %s\n", what, strerror(errno));
  exit(2);
}

static double now_us(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static void read_config(void) {
  char text[4096];
  config_fd = memfd_create("config", MFD_CLOEXEC);
  if (config_fd < 0) fail("memfd_create");
  for (ssize_t got; (got = read(STDIN_FILENO, text, sizeof text)) > 0;)
    if (write(config_fd, text, (size_t)got) != got) fail("configuration");
}

static void start(struct running *call, const char *command, char *program, int number) {
  char id[64], netns[64], what[64], input[64];
  snprintf(what, sizeof what, "CNI_COMMAND=%s", command);
  snprintf(id, sizeof id, "CNI_CONTAINERID=b-%d", number);
  snprintf(netns, sizeof netns, "CNI_NETNS=/run/netns/b-%d", number);
  char *environment[] = {what, id, netns, "CNI_IFNAME=eth0", "CNI_PATH=/usr/lib/cni", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
  char *arguments[] = {program, NULL};
  /* Opened anew: each reads from its beginning. */
  snprintf(input, sizeof input, "/proc/self/fd/%d", config_fd);
  int in = open(input, O_RDONLY | O_CLOEXEC);
  *call = (struct running){.number = number, .output = memfd_create("output", MFD_CLOEXEC)};
  if (in < 0 || call->output < 0) fail("input and output");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, call->output, STDOUT_FILENO);
  call->start = now_us();
  errno = posix_spawn(&call->pid, program, &actions, NULL, arguments, environment);
  if (errno != 0) fail(program);
  posix_spawn_file_actions_destroy(&actions);
  close(in);
}

static size_t output_of(const struct running *call, char *text, size_t size) {
  ssize_t got = pread(call->output, text, size - 1, 0);
  text[got < 0 ? 0 : got] = '\0';
  return strlen(text);
}

/* Runs in the namespace of a container what is between enter() and leave(). */
static int own_netns;

static void enter(int number) {
  char path[64];
  snprintf(path, sizeof path, "/run/netns/b-%d", number);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || setns(fd, CLONE_NEWNET) != 0) fail(path);
  close(fd);
}

static void leave(void) {
  if (setns(own_netns, CLONE_NEWNET) != 0) fail("setns back");
}

static int listen_in(int number) {
  const int on = 1;
  const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(PORT)};
  enter(number);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  leave();
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      bind(fd, (const struct sockaddr *)&any, sizeof any) != 0 || listen(fd, 8) != 0)
    fail("listen");
  return fd;
}

/* The first address that the plugin's result names. */
static struct sockaddr_in address_of(const struct running *call) {
  char text[16384];
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
  output_of(call, text, sizeof text);
  char *at = strstr(text, "\"ips\"");
  at = at == NULL ? NULL : strstr(at, "\"address\"");
  at = at == NULL ? NULL : strpbrk(at + strlen("\"address\""), "0123456789");
  if (at != NULL) at[strspn(at, "0123456789.")] = '\0';
  if (at == NULL || inet_pton(AF_INET, at, &to.sin_addr) != 1) errno = EINVAL, fail(text);
  return to;
}

static double connect_us(const struct sockaddr_in *to) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  double start = now_us();
  if (fd < 0 || connect(fd, (const struct sockaddr *)to, sizeof *to) != 0) fail("connect to a container");
  double took = now_us() - start;
  const struct linger abort = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
  close(fd);
  return took;
}

static void make_namespaces(int from, int to) {
  mkdir("/run/netns", 0755);
  for (int number = from; number < to; number++) {
    char path[64];
    snprintf(path, sizeof path, "/run/netns/b-%d", number);
    int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0444);
    if (fd < 0) fail(path);
    close(fd);
    if (unshare(CLONE_NEWNET) != 0 || mount("/proc/thread-self/ns/net", path, NULL, MS_BIND, NULL) != 0) fail(path);
  }
}

int main(int argc, char **argv) {
  if (argc != 6 && argc != 7) {
    fprintf(stderr, "usage: cni-calls COMMAND PROGRAM PARALLEL FROM TO [connect]\n");
    return 2;
  }
  int parallel = atoi(argv[3]), next = atoi(argv[4]), last = atoi(argv[5]);
  bool connects = argc == 7;
  if (parallel < 1 || parallel > PARALLEL_MAX || next > last || (connects && parallel != 1)) errno = EINVAL, fail("arguments");
  own_netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (own_netns < 0) fail("own namespace");
  if (strcmp(argv[1], "namespaces") == 0) return make_namespaces(next, last), 0;
  read_config();

  int listening = -1;
  double begun = now_us();
  for (int under_way = 0; next < last || under_way > 0;) {
    if (next < last && under_way < parallel) {
      int free = 0;
      while (calls[free].pid != 0) free++;
      if (connects) listening = listen_in(next);
      start(&calls[free], argv[1], argv[2], next++);
      under_way++;
      continue;
    }
    int status, which = 0;
    pid_t pid = waitpid(-1, &status, 0);
    double end = now_us();
    if (pid < 0 && errno == EINTR) continue;
    if (pid < 0) fail("waitpid");
    while (which < PARALLEL_MAX && calls[which].pid != pid) which++;
    if (which == PARALLEL_MAX) continue;
    struct running *call = &calls[which];
    if (status != 0) {
      char text[16384];
      output_of(call, text, sizeof text);
      fprintf(stderr, "%s %s of b-%d: status %d: %s\n", argv[2], argv[1], call->number, status, text);
      return 1;
    }
    printf("%.1f", end - call->start);
    if (connects) {
      const struct sockaddr_in to = address_of(call);
      printf(" %.1f", connect_us(&to));
      close(listening);
    }
    putchar('\n');
    close(call->output);
    call->pid = 0;
    under_way--;
  }
  printf("total %.1f\n", now_us() - begun);
  return 0;
}
