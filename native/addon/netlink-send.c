/*
 * Sending on a netlink socket: at once, on a thread of its own, or on the one that stands by.
 *
 * In: a socket, bytes. Out: done, or an error. Never: a crash when the JavaScript thread ends with sends under way; a descriptor closed
 * while one of them uses it.
 */
#include "background.h"
#include "netlink.h"
#include "standby.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int send_bytes(int fd, const uint8_t *bytes, size_t length) {
  while (send(fd, bytes, length, 0) < 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

/* send(socket, bytes): the kernel carries out the request before this returns. */
napi_value send_now(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  const uint8_t *bytes;
  size_t length;
  if (!get_arguments(env, info, 2, arguments)) return NULL;
  struct netlink_socket *sock = get_socket(env, arguments[0]);
  if (sock == NULL || !get_bytes(env, arguments[1], "message", &bytes, &length)) return NULL;
  int error = send_bytes(sock->fd, bytes, length);
  return error == 0 ? NULL : throw_system_error(env, "send to netlink", error);
}

struct background_send {
  struct background background;
  struct netlink_socket *sock;
  size_t length;
  uint8_t bytes[];
};

static int run_send(struct background *background) {
  const struct background_send *task = (const struct background_send *)background;
  return send_bytes(task->sock->fd, task->bytes, task->length);
}

static napi_value nothing(napi_env env, struct background *background) {
  (void)background;
  napi_value value;
  return napi_get_undefined(env, &value) == napi_ok ? value : NULL;
}

static void release_send(struct background *background) {
  drop_user(((struct background_send *)background)->sock);
  free(background);
}

/* sendInBackground(socket, bytes) → Promise, fulfilled when the kernel has carried out the request. */
napi_value send_in_background(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  const uint8_t *bytes;
  size_t length;
  if (!get_arguments(env, info, 2, arguments)) return NULL;
  struct netlink_socket *sock = get_socket(env, arguments[0]);
  if (sock == NULL || !get_bytes(env, arguments[1], "message", &bytes, &length)) return NULL;
  struct background_send *task = calloc(1, sizeof *task + length);
  if (task == NULL) return throw_system_error(env, "calloc", ENOMEM);
  task->background = (struct background){.run = run_send, .result = nothing, .release = release_send, .what = "send to netlink"};
  task->sock = sock;
  task->length = length;
  if (length > 0) memcpy(task->bytes, bytes, length);
  sock->users++;
  return start_in_background(env, &task->background, "netctl:send");
}

/* beginSend(socket, bytes): finishSend is to follow, before another one begins. */
napi_value begin_send(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  const uint8_t *bytes;
  size_t length;
  struct addon *addon = addon_of(env);
  if (addon == NULL || !get_arguments(env, info, 2, arguments)) return NULL;
  struct netlink_socket *sock = get_socket(env, arguments[0]);
  if (sock == NULL || !get_bytes(env, arguments[1], "message", &bytes, &length)) return NULL;
  if (addon->standby == NULL) addon->standby = standby_new();
  if (addon->standby == NULL) return throw_system_error(env, "start a thread", errno);
  int error = standby_begin(addon->standby, sock->fd, bytes, length);
  if (error != 0) return throw_system_error(env, "begin to send to netlink", error);
  addon->sending = sock;
  sock->users++;
  return NULL;
}

/* finishSend(socket): the kernel has carried out the request when this returns. */
napi_value finish_send(napi_env env, napi_callback_info info) {
  napi_value argument;
  struct addon *addon = addon_of(env);
  if (addon == NULL || !get_arguments(env, info, 1, &argument)) return NULL;
  struct netlink_socket *sock = get_any_socket(env, argument);
  if (sock == NULL) return NULL;
  if (addon->sending != sock) return throw_system_error(env, "finish a send to netlink", EINVAL);
  int error = standby_finish(addon->standby);
  addon->sending = NULL;
  drop_user(sock);
  return error == 0 ? NULL : throw_system_error(env, "send to netlink", error);
}
