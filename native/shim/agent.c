/*
 * Conversation with the agent: one non-blocking connection, one request frame, one reply frame (PROTOCOL.md).
 * In: socket path, request, a deadline on the monotonic clock. Out: the reply, or a failure that says why not.
 * Every wait is a ppoll() with a deadline; SIGTERM and SIGINT are delivered only inside it, so no signal is missed.
 * Must never talk to a socket in a directory that somebody else could have filled.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "shim.h"

#define RETRY_MS 100     /* nobody listens */
#define BACKLOG_RETRY_MS 5 /* the agent listens, but its accept queue is full */

static volatile sig_atomic_t stopped;
static sigset_t while_waiting;
static unsigned char reply_frame[4 + REPLY_MAX];

static bool send_some(int fd, const struct request *request, size_t *sent, bool *sending, struct failure *failure);
static bool reply_complete(size_t received, struct reply *reply, struct failure *failure, bool *bad);

/* Connects, trying again until `until` if `retry`; a full backlog is always tried again. -1 with `failure` filled. */
int agent_connect(const char *path, bool retry, int64_t until, struct failure *failure) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char directory[SOCKET_PATH_MAX];
  strcpy(address.sun_path, path); /* its length was checked */
  path_directory(path, directory);

  for (;;) {
    bool safe = directory_is_safe(directory, false, failure);
    if (!safe && failure->kind == UNSAFE_DIRECTORY) return -1;
    int64_t pause = RETRY_MS;
    if (safe) {
      int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      if (fd < 0) return failed(failure, UNREACHABLE, "cannot open a socket: %s", strerror(errno)), -1;
      if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
      if (errno == EAGAIN) pause = BACKLOG_RETRY_MS;
      failed(failure, UNREACHABLE, "%s: %s", path, errno == EAGAIN ? "accept queue is full" : strerror(errno));
      close(fd);
    }
    if (pause == RETRY_MS && !retry) return -1;
    int64_t next = now_ms() + pause;
    if (next > until) return -1;
    if (wait_for(-1, 0, next) == WAIT_STOPPED) return failed(failure, NO_ANSWER, "terminated by a signal"), -1;
  }
}

/* Sends the request and reads the reply frame; its output stays valid until the next call. */
bool agent_exchange(int fd, const struct request *request, int64_t until, struct reply *reply,
                    struct failure *failure) {
  size_t sent = 0, received = 0;
  for (bool sending = true, bad = false;;) {
    switch (wait_for(fd, (short)(sending ? POLLIN | POLLOUT : POLLIN), until)) {
      case WAIT_EXPIRED:
        return failed(failure, NO_ANSWER, "the agent did not answer in time");
      case WAIT_STOPPED:
        return failed(failure, NO_ANSWER, "terminated by a signal while waiting for the agent");
      case WAIT_READY:
        break;
    }
    if (sending && !send_some(fd, request, &sent, &sending, failure)) return false;
    ssize_t n = recv(fd, reply_frame + received, sizeof reply_frame - received, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n < 0 && errno != ECONNRESET) return failed(failure, NO_ANSWER, "reading the reply: %s", strerror(errno));
    if (n <= 0) return failed(failure, NO_ANSWER, "the agent closed the connection before it answered");
    received += (size_t)n;
    if (reply_complete(received, reply, failure, &bad)) return true;
    if (bad) return false;
  }
}

/* Sends what the socket takes. An agent that stopped reading may still have answered: then only reading goes on. */
static bool send_some(int fd, const struct request *request, size_t *sent, bool *sending, struct failure *failure) {
  struct iovec parts[2];
  size_t count = 0;
  size_t in_head = *sent < request->head_length ? *sent : request->head_length;
  size_t in_input = *sent - in_head;
  if (in_head < request->head_length)
    parts[count++] = (struct iovec){(void *)(request->head + in_head), request->head_length - in_head};
  parts[count++] = (struct iovec){(void *)(request->input + in_input), request->input_length - in_input};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};

  ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
  if (n >= 0) {
    *sent += (size_t)n;
    *sending = *sent < request->head_length + request->input_length;
  } else if (errno == EPIPE || errno == ECONNRESET) {
    *sending = false;
  } else if (errno != EAGAIN && errno != EINTR) {
    return failed(failure, NO_ANSWER, "sending the request: %s", strerror(errno));
  }
  return true;
}

/* True when the frame is whole; *bad when it can never become a good one. The version is judged before the length. */
static bool reply_complete(size_t received, struct reply *reply, struct failure *failure, bool *bad) {
  const unsigned char *f = reply_frame;
  if (received < 5) return false;
  uint32_t length = (uint32_t)f[0] << 24 | (uint32_t)f[1] << 16 | (uint32_t)f[2] << 8 | f[3];
  *bad = true;
  if (length < 2 || length > REPLY_MAX)
    return failed(failure, NO_ANSWER, "the agent sent a frame of %u bytes; a reply has 2 to %u", length, REPLY_MAX);
  if (f[4] != PROTOCOL_VERSION)
    return failed(failure, PROTOCOL_MISMATCH, "the agent speaks protocol version %u, this plugin speaks version %d",
                  f[4], PROTOCOL_VERSION);
  *bad = false;
  if (received < 4 + (size_t)length) return false;
  *reply = (struct reply){.exit_status = f[5], .output = f + 6, .length = length - 2};
  return true;
}

void path_directory(const char *path, char directory[SOCKET_PATH_MAX]) {
  size_t n = (size_t)(strrchr(path, '/') - path);
  if (n == 0) n = 1;
  memcpy(directory, path, n);
  directory[n] = '\0';
}

/* Whether only root or the caller can put files into `directory`. A missing one is UNREACHABLE, not unsafe. */
bool directory_is_safe(const char *directory, bool follow, struct failure *failure) {
  struct stat st;
  if ((follow ? stat : lstat)(directory, &st) < 0)
    return failed(failure, UNREACHABLE, "%s: %s", directory, strerror(errno));
  if (!S_ISDIR(st.st_mode)) return failed(failure, UNSAFE_DIRECTORY, "%s is not a directory", directory);
  if (st.st_uid != 0 && st.st_uid != geteuid())
    return failed(failure, UNSAFE_DIRECTORY, "directory %s is unsafe: owned by uid %u, must be root", directory,
                  st.st_uid);
  if (st.st_mode & (S_IWGRP | S_IWOTH))
    return failed(failure, UNSAFE_DIRECTORY, "directory %s is unsafe: mode %04o lets others write", directory,
                  st.st_mode & 07777);
  return true;
}

static void remember_stop(int signal) {
  (void)signal;
  stopped = 1;
}

/* SIGPIPE and SIGXFSZ are ignored, so that write() says what is wrong; SIGTERM and SIGINT end the next wait. */
void signals_prepare(void) {
  struct sigaction ignore = {.sa_handler = SIG_IGN}, stop = {.sa_handler = remember_stop};
  sigset_t held;
  sigemptyset(&held);
  sigaddset(&held, SIGTERM);
  sigaddset(&held, SIGINT);
  sigprocmask(SIG_BLOCK, &held, &while_waiting);
  sigdelset(&while_waiting, SIGTERM);
  sigdelset(&while_waiting, SIGINT);
  sigaction(SIGPIPE, &ignore, NULL);
  sigaction(SIGXFSZ, &ignore, NULL);
  sigaction(SIGTERM, &stop, NULL);
  sigaction(SIGINT, &stop, NULL);
}

int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Waits for `events` on `fd` (or, with -1, only for the time). What is ready wins over an expired deadline. */
enum wait_result wait_for(int fd, short events, int64_t until) {
  for (;;) {
    if (stopped) return WAIT_STOPPED;
    int64_t left = until - now_ms();
    if (left < 0) left = 0;
    struct timespec timeout = {.tv_sec = (time_t)(left / 1000), .tv_nsec = (long)(left % 1000 * 1000000)};
    struct pollfd wanted = {.fd = fd, .events = events};
    int n = ppoll(&wanted, 1, &timeout, &while_waiting);
    if (n > 0) return WAIT_READY;
    if ((n == 0 && now_ms() >= until) || (n < 0 && errno != EINTR)) return WAIT_EXPIRED;
  }
}

/* Fills `failure`; returns false so that a caller can give up in one line. */
bool failed(struct failure *failure, enum failure_kind kind, const char *format, ...) {
  va_list arguments;
  int saved = errno;
  failure->kind = kind;
  va_start(arguments, format);
  vsnprintf(failure->text, sizeof failure->text, format, arguments);
  va_end(arguments);
  errno = saved;
  return false;
}
