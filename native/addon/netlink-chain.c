/*
 * Chains of netlink requests on a thread of its own: the kernel's work for several endpoints at once, each in its namespaces.
 *
 * In: parts in order, each with its chain, a namespace, bytes. Out: the kernel's answers to each. Never: a part sent after one of its chain
 * that the kernel refused; another chain kept from going on by that; the JavaScript thread in another namespace.
 */
#include "background.h"
#include "netlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PARTS_MAX 1024
#define NOT_SENT (-1)

struct part {
  int32_t chain;
  int32_t netns; /* -1: the thread's own */
  int32_t length;
};

/* What comes back: for each part an errno (0, or NOT_SENT), the length of the answers, the answers. */
struct output {
  uint8_t *bytes;
  size_t length;
  size_t size;
};

struct chain_task {
  struct background background;
  size_t count;
  struct output output;
  struct part *parts;
  const uint8_t *bytes;
  uint8_t receive_buffer[RECEIVE_BYTES];
};

static bool append(struct output *output, const void *bytes, size_t length) {
  if (output->length + length > output->size) {
    size_t size = 2 * (output->length + length);
    uint8_t *grown = realloc(output->bytes, size);
    if (grown == NULL) return false;
    output->bytes = grown;
    output->size = size;
  }
  memcpy(output->bytes + output->length, bytes, length);
  output->length += length;
  return true;
}

static bool has_refusal(const uint8_t *bytes, ssize_t length) {
  size_t left = (size_t)length;
  for (const struct nlmsghdr *at = (const void *)bytes; NLMSG_OK(at, left); at = NLMSG_NEXT(at, left)) {
    if (at->nlmsg_type == NLMSG_ERROR && at->nlmsg_len >= NLMSG_LENGTH(sizeof(struct nlmsgerr)) &&
        ((const struct nlmsgerr *)NLMSG_DATA(at))->error != 0) {
      return true;
    }
  }
  return false;
}

/* The kernel has answered when send returns. Returns an errno; `refused` when one of the requests was. */
static int exchange(struct chain_task *task, int fd, const uint8_t *bytes, size_t length, bool *refused) {
  while (send(fd, bytes, length, 0) < 0) {
    if (errno != EINTR) return errno;
  }
  for (;;) {
    struct sockaddr_nl from = {0};
    socklen_t from_length = sizeof from;
    ssize_t got = recvfrom(fd, task->receive_buffer, RECEIVE_BYTES, MSG_DONTWAIT, (struct sockaddr *)&from, &from_length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN ? 0 : errno;
    if (from.nl_pid != 0) continue; /* other processes may write to us, too: not heard */
    if (has_refusal(task->receive_buffer, got)) *refused = true;
    if (!append(&task->output, task->receive_buffer, (size_t)got)) return ENOMEM;
  }
}

static int open_routing(int netns) {
  const int on = 1;
  if (netns >= 0 && setns(netns, CLONE_NEWNET) != 0) return -1;
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (fd < 0) return -1;
  setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
  return fd;
}

/* The thread ends afterwards: in whichever namespace it is then. `own` was opened before it went into any. */
static int run_part(struct chain_task *task, const struct part *part, int own, const uint8_t *bytes, bool *refused) {
  if (part->length == 0) return 0;
  int fd = part->netns < 0 ? own : open_routing(part->netns);
  if (fd < 0) return errno;
  int error = exchange(task, fd, bytes, (size_t)part->length, refused);
  if (fd != own) close(fd);
  return error;
}

static int run_parts(struct background *background) {
  struct chain_task *task = (struct chain_task *)background;
  int own = open_routing(-1);
  if (own < 0) return errno;
  int32_t failed_chain = -1;
  const uint8_t *bytes = task->bytes;
  int failure = 0;
  for (size_t i = 0; i < task->count && failure == 0; bytes += task->parts[i++].length) {
    const struct part *part = &task->parts[i];
    size_t header_at = task->output.length;
    int32_t header[2] = {NOT_SENT, 0};
    if (!append(&task->output, header, sizeof header)) failure = ENOMEM;
    if (failure != 0 || part->chain == failed_chain) continue;
    bool refused = false;
    header[0] = run_part(task, part, own, bytes, &refused);
    header[1] = (int32_t)(task->output.length - header_at - sizeof header);
    memcpy(task->output.bytes + header_at, header, sizeof header);
    if (header[0] != 0 || refused) failed_chain = part->chain;
  }
  close(own);
  return failure;
}

static napi_value answers(napi_env env, struct background *background) {
  const struct output *output = &((struct chain_task *)background)->output;
  napi_value value;
  return napi_create_buffer_copy(env, output->length, output->bytes, NULL, &value) == napi_ok ? value : NULL;
}

static void release_task(struct background *background) {
  struct chain_task *task = (struct chain_task *)background;
  free(task->output.bytes);
  free(task->parts);
  free(task);
}

/* Copies what JavaScript may change meanwhile; NULL with an exception pending. */
static struct chain_task *new_task(napi_env env, const uint8_t *numbers, size_t numbers_length, const uint8_t *bytes, size_t length) {
  size_t count = numbers_length / sizeof(struct part);
  struct chain_task *task = numbers_length % sizeof(struct part) == 0 && count > 0 && count <= PARTS_MAX ? calloc(1, sizeof *task) : NULL;
  if (task == NULL) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_VALUE", "parts: expected 1 to 1024 of three numbers each");
    return NULL;
  }
  task->parts = malloc(numbers_length + length);
  if (task->parts == NULL) {
    release_task(&task->background);
    throw_system_error(env, "malloc", ENOMEM);
    return NULL;
  }
  memcpy(task->parts, numbers, numbers_length);
  memcpy((uint8_t *)task->parts + numbers_length, bytes, length);
  task->background = (struct background){
      .run = run_parts, .result = answers, .release = release_task, .what = "chains of netlink requests"};
  task->count = count;
  task->bytes = (const uint8_t *)task->parts + numbers_length;
  size_t sum = 0;
  for (size_t i = 0; i < count; i++) sum += task->parts[i].length < 0 ? SIZE_MAX / PARTS_MAX : (size_t)task->parts[i].length;
  if (sum == length) return task;
  release_task(&task->background);
  napi_throw_type_error(env, "ERR_INVALID_ARG_VALUE", "bytes: expected as many as the parts say");
  return NULL;
}

/* runChains(parts, bytes) → Promise of a Buffer; the namespaces stay open until then. `parts`: int32 chain, namespace or -1, length. */
napi_value run_chains(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  const uint8_t *numbers, *bytes;
  size_t numbers_length, length;
  if (!get_arguments(env, info, 2, arguments) || !get_bytes(env, arguments[0], "parts", &numbers, &numbers_length) ||
      !get_bytes(env, arguments[1], "bytes", &bytes, &length)) {
    return NULL;
  }
  struct chain_task *task = new_task(env, numbers, numbers_length, bytes, length);
  return task == NULL ? NULL : start_in_background(env, &task->background, "netctl:chains");
}
