/*
 * kill-at LOG STEP CALLS -p PID | PROGRAM [ARGUMENT...]: lets a process die, by SIGKILL, as it enters the STEP-th of the named system
 * calls, counted over all of its threads (strace counts each thread and each call apart, so that most steps are never met).
 *
 * In: CALLS is `all` or names with commas between; STEP 0 only counts. Out: LOG, one line per counted call: name and what it is about
 * (a file's name, a socket's kind); the exit status of PROGRAM, 137 if it was killed here. On a running process it says `attached` and
 * goes on until SIGTERM or the process's end. Never: a process that dies because we end. Calls on eventfds (a thread
 * waking another) are not counted: nobody outside sees them.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/netlink.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPTIONS (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE)
#define THREADS_MAX 256
#define CALLS_MAX 32

/* What its first argument is. */
enum about { NOTHING, DESCRIPTOR, PATH, PATH_AT };

static const struct call {
  const char *name;
  long number;
  enum about about;
} known[] = {
#define CALL(name, about) {#name, SYS_##name, about}
    CALL(write, DESCRIPTOR),    CALL(writev, DESCRIPTOR),    CALL(pwrite64, DESCRIPTOR), CALL(pwritev, DESCRIPTOR),
    CALL(sendto, DESCRIPTOR),   CALL(sendmsg, DESCRIPTOR),   CALL(sendmmsg, DESCRIPTOR), CALL(fsync, DESCRIPTOR),
    CALL(fdatasync, DESCRIPTOR), CALL(ftruncate, DESCRIPTOR), CALL(unlinkat, PATH_AT),   CALL(renameat, PATH_AT),
    CALL(mkdirat, PATH_AT),     CALL(openat, PATH_AT),       CALL(connect, DESCRIPTOR),  CALL(read, DESCRIPTOR),
    CALL(recvfrom, DESCRIPTOR), CALL(close, DESCRIPTOR),     CALL(ppoll, NOTHING),       CALL(flock, DESCRIPTOR),
    CALL(socket, NOTHING),      CALL(exit_group, NOTHING),
#ifdef SYS_unlink
    CALL(unlink, PATH),         CALL(rename, PATH),          CALL(mkdir, PATH),
#else /* only with `at` there */
    {"unlink", -1, PATH},       {"rename", -1, PATH},        {"mkdir", -1, PATH},
#endif
};

static pid_t process;
static FILE *log_file;
static unsigned long step, met;
static bool all;
static long chosen[CALLS_MAX];
static size_t chosen_count;
static pid_t threads[THREADS_MAX];
static size_t thread_count;
static volatile sig_atomic_t leaving;

static void fail(const char *what) {
  fprintf(stderr, "kill-at: %s: %s\n", what, strerror(errno));
  exit(2);
}

static void leave(int signal) {
  (void)signal;
  leaving = 1;
}

static void choose(char *names) {
  all = strcmp(names, "all") == 0;
  for (char *name = all ? NULL : strtok(names, ","); name != NULL; name = strtok(NULL, ",")) {
    size_t i = 0;
    while (i < sizeof known / sizeof *known && strcmp(known[i].name, name) != 0) i++;
    if (i == sizeof known / sizeof *known || chosen_count == CALLS_MAX) errno = EINVAL, fail(name);
    chosen[chosen_count++] = known[i].number;
  }
}

static bool is_chosen(long number) {
  for (size_t i = 0; i < chosen_count; i++)
    if (chosen[i] == number) return true;
  return all;
}

static const struct call *call_of(long number) {
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (known[i].number == number) return &known[i];
  return NULL;
}

static void remember(pid_t thread) {
  for (size_t i = 0; i < thread_count; i++)
    if (threads[i] == thread) return;
  if (thread_count == THREADS_MAX) errno = EAGAIN, fail("threads");
  threads[thread_count++] = thread;
}

static void forget(pid_t thread) {
  for (size_t i = 0; i < thread_count; i++)
    if (threads[i] == thread) threads[i] = threads[--thread_count];
}

/* The process's own socket, asked what it is: its link in /proc has only a number. */
static void describe_socket(int fd, char *text, size_t size) {
  int domain = 0, protocol = 0;
  socklen_t length = sizeof domain;
  int pidfd = (int)syscall(SYS_pidfd_open, process, 0);
  int copy = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
  if (copy >= 0) {
    getsockopt(copy, SOL_SOCKET, SO_DOMAIN, &domain, &length);
    getsockopt(copy, SOL_SOCKET, SO_PROTOCOL, &protocol, &length);
    close(copy);
  }
  if (pidfd >= 0) close(pidfd);
  const char *kind = domain == AF_UNIX ? "unix" : domain == AF_INET || domain == AF_INET6 ? "inet" : "socket";
  if (domain == AF_NETLINK) kind = protocol == NETLINK_ROUTE ? "route" : protocol == NETLINK_NETFILTER ? "netfilter" : "netlink";
  snprintf(text, size, "%s", kind);
}

static void read_text(uint64_t address, char *text, size_t size) {
  text[0] = '\0';
  for (size_t at = 0; at + sizeof(long) < size; at += sizeof(long)) {
    errno = 0;
    long word = ptrace(PTRACE_PEEKDATA, threads[0], (void *)(address + at), NULL);
    if (errno != 0) return;
    memcpy(text + at, &word, sizeof word);
    text[at + sizeof word] = '\0';
    if (memchr(&word, 0, sizeof word) != NULL) return;
  }
}

static void describe(pid_t thread, const struct call *call, const uint64_t *arguments, char *text, size_t size) {
  char link[64], path[PATH_MAX] = "";
  text[0] = '\0';
  if (call == NULL || call->about == NOTHING) return;
  if (call->about == DESCRIPTOR) {
    snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)process, (int)arguments[0]);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = '\0';
    if (strncmp(path, "socket:", 7) == 0) return describe_socket((int)arguments[0], text, size);
  } else {
    /* PTRACE_PEEKDATA needs the thread that stands still. */
    pid_t first = threads[0];
    threads[0] = thread;
    read_text(arguments[call->about == PATH_AT ? 1 : 0], path, sizeof path);
    threads[0] = first;
  }
  const char *slash = strrchr(path, '/');
  snprintf(text, size, "%s", slash == NULL ? path : slash + 1);
}

/* At the entry of a call: counted, and at the right one the end. */
static void at_entry(pid_t thread, const struct __ptrace_syscall_info *info) {
  long number = (long)info->entry.nr;
  if (!is_chosen(number)) return;
  const struct call *call = call_of(number);
  char about[128];
  describe(thread, call, info->entry.args, about, sizeof about);
  if (strcmp(about, "anon_inode:[eventfd]") == 0) return;
  met++;
  if (call != NULL) fprintf(log_file, "%s %s\n", call->name, about);
  else fprintf(log_file, "#%ld\n", number);
  fflush(log_file);
  if (met == step) kill(process, SIGKILL);
}

static void on_stop(pid_t thread, int status) {
  int signal = WSTOPSIG(status), event = status >> 16;
  if (signal == (SIGTRAP | 0x80)) {
    struct __ptrace_syscall_info info;
    if (!leaving && ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY)
      at_entry(thread, &info);
    signal = 0;
  } else if (event != 0 || signal == SIGTRAP) {
    signal = 0;
  }
  if (ptrace(leaving ? PTRACE_DETACH : PTRACE_SYSCALL, thread, NULL, (void *)(long)signal) == 0 && leaving) forget(thread);
}

static void attach(void) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task", (int)process);
  /* Until a look shows none that is new: threads may start meanwhile. */
  for (size_t before = SIZE_MAX; before != thread_count;) {
    before = thread_count;
    DIR *listing = opendir(path);
    if (listing == NULL) fail(path);
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
      pid_t thread = (pid_t)atoi(entry->d_name);
      if (thread == 0 || ptrace(PTRACE_SEIZE, thread, NULL, (void *)OPTIONS) != 0) continue;
      remember(thread);
      if (ptrace(PTRACE_INTERRUPT, thread, NULL, NULL) != 0 && errno != ESRCH) fail("interrupt");
    }
    closedir(listing);
  }
  if (thread_count == 0) errno = ESRCH, fail(path);
  /* Only when each thread has stood still once does it tell of its calls. */
  for (size_t i = 0; i < thread_count; i++) {
    int status;
    if (waitpid(threads[i], &status, __WALL) == threads[i] && WIFSTOPPED(status)) on_stop(threads[i], status);
  }
  puts("attached");
  fflush(stdout);
}

static void start(char **command) {
  int status;
  process = fork();
  if (process < 0) fail("fork");
  if (process == 0) {
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    execv(command[0], command);
    fail(command[0]);
  }
  remember(process);
  if (waitpid(process, &status, 0) != process || !WIFSTOPPED(status)) errno = ENOEXEC, fail(command[0]);
  ptrace(PTRACE_SETOPTIONS, process, NULL, (void *)OPTIONS);
  ptrace(PTRACE_SYSCALL, process, NULL, NULL);
}

int main(int argc, char **argv) {
  if (argc < 5) {
    fprintf(stderr, "usage: kill-at LOG STEP CALLS -p PID | PROGRAM [ARGUMENT...]\n");
    return 2;
  }
  log_file = fopen(argv[1], "we");
  if (log_file == NULL) fail(argv[1]);
  step = strtoul(argv[2], NULL, 10);
  choose(argv[3]);
  /* Without SA_RESTART: the wait below must end. */
  sigaction(SIGTERM, &(struct sigaction){.sa_handler = leave}, NULL);
  if (strcmp(argv[4], "-p") == 0) {
    process = argc > 5 ? (pid_t)atoi(argv[5]) : 0;
    attach();
  } else {
    start(argv + 4);
  }
  int code = 0;
  for (bool asked = false; thread_count > 0;) {
    if (leaving && !asked) {
      asked = true;
      for (size_t i = 0; i < thread_count; i++) ptrace(PTRACE_INTERRUPT, threads[i], NULL, NULL);
    }
    int status;
    pid_t thread = waitpid(-1, &status, __WALL);
    if (thread < 0 && errno == EINTR) continue;
    if (thread < 0) break;
    if (WIFSTOPPED(status)) {
      if (!leaving) remember(thread);
      on_stop(thread, status);
      continue;
    }
    forget(thread);
    if (thread == process) code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return code;
}
