/*
 * What the parts of the CNI executable share: limits, the configuration keys it needs, a reason for a failure.
 * In: the environment and standard input of one CNI call. Out: one JSON document on standard output and an exit code.
 * Nothing here may grow without bound, and nothing read from standard input may be logged.
 */
#ifndef NETCTL_SHIM_H
#define NETCTL_SHIM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#define PROTOCOL_VERSION 1
#define STDIN_MAX (1u << 20)   /* bytes of network configuration */
#define REPLY_MAX (4u << 20)   /* value of a reply frame's length field */
#define ENV_BLOCK_MAX ((1u << 17) - 13) /* so that a request frame has at most 1 MiB + 128 KiB */
#define STRING_MAX 4096        /* a decoded configuration string, with its NUL */
#define SOCKET_PATH_MAX sizeof(((struct sockaddr_un *)0)->sun_path)
#define DEFAULT_SOCKET "/run/netctl/cni.sock"
#define DEFAULT_QUEUE "/var/lib/netctl/delqueue"

/* All waits are divided by this; only the tests' builds set it. */
#ifndef NETCTL_TIME_DIVISOR
#define NETCTL_TIME_DIVISOR 1
#endif
#define MILLISECONDS(n) ((n) / NETCTL_TIME_DIVISOR)

/* One string of the network configuration, unescaped and NUL-terminated (it may hold further NULs). */
struct config_string {
  enum { STRING_ABSENT, STRING_GIVEN, STRING_TOO_LONG, STRING_WRONG_TYPE } state;
  size_t length;
  char text[STRING_MAX];
};

struct network_config {
  struct config_string cni_version, name, socket;
};

/* json.c: checks the whole text and extracts the three strings. False, with `why` filled, when it is no JSON object. */
bool json_read_config(const char *text, size_t length, struct network_config *config, char *why, size_t why_size);

/* output.c: the only writers of standard output. They return the exit status of the process. */
int output_bytes(const void *bytes, size_t length, int exit_status);
int output_error(const char *cni_version, int code, const char *msg, const char *details);
int output_versions(const char *cni_version, const char *const *versions, size_t count);

/* Why the agent did not answer; only UNREACHABLE means that it never saw the request. */
enum failure_kind { UNREACHABLE, UNSAFE_DIRECTORY, NO_ANSWER, PROTOCOL_MISMATCH };
struct failure {
  enum failure_kind kind;
  char text[512];
};

/* One request frame: `head` (length, fixed fields and environment block) followed by the standard input. */
struct request {
  unsigned char head[4 + 1 + 4 + 4 + 4 + ENV_BLOCK_MAX];
  size_t head_length;
  const char *input;
  size_t input_length;
};

struct reply {
  uint8_t exit_status;
  const unsigned char *output;
  size_t length;
};

/* request.c */
bool request_build(struct request *request, int netns_fd, bool ipam, const char *const *more, size_t more_count,
                   const char *input, size_t input_length);

/* agent.c: times are CLOCK_MONOTONIC milliseconds. */
enum wait_result { WAIT_READY, WAIT_EXPIRED, WAIT_STOPPED };
void signals_prepare(void);
int64_t now_ms(void);
enum wait_result wait_for(int fd, short events, int64_t until);
void path_directory(const char *path, char directory[SOCKET_PATH_MAX]);
bool directory_is_safe(const char *directory, bool follow, struct failure *failure);
int agent_connect(const char *path, bool retry, int64_t until, struct failure *failure);
bool agent_exchange(int fd, const struct request *request, int64_t until, struct reply *reply, struct failure *failure);

/* queue.c: keep a DEL for an agent that is away. */
bool queue_find(const char *socket_path, char *directory, size_t size, struct failure *failure);
int queue_lock(const char *directory, int64_t until, struct failure *failure);
bool queue_write(const char *directory, const char *name, const char *container_id, const char *ifname,
                 const struct request *request, struct failure *failure);

bool failed(struct failure *failure, enum failure_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
