/*
 * Sending on a netlink socket: at once, or on a thread of its own.
 *
 * In: a socket, bytes. Out: done, or an error. Never: a crash when the JavaScript thread ends with sends under way.
 */
#include "netlink.h"

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

/*
 * A send on a thread of its own: the kernel sleeps in it for up to 40 ms, and a few of those would fill the pool of four that
 * all file access of Node.js shares. The thread starts in the namespace of the JavaScript thread, which never is another one
 * when JavaScript runs.
 */
struct background_send {
  struct netlink_socket *sock;
  napi_deferred deferred;
  napi_async_context context;
  napi_async_cleanup_hook_handle cleanup;
  bool javascript_ended;
  uv_thread_t thread;
  uv_async_t done;
  int error;
  size_t length;
  uint8_t bytes[];
};

#define SEND_STACK_BYTES (128 * 1024)

static void run_send(void *data) {
  struct background_send *task = data;
  task->error = send_bytes(task->sock->fd, task->bytes, task->length);
  uv_async_send(&task->done);
}

static void settle(napi_env env, struct background_send *task) {
  napi_handle_scope handles;
  napi_callback_scope callback;
  napi_value resource, value;
  if (napi_open_handle_scope(env, &handles) != napi_ok) return;
  /* The scope makes what waits for the promise run as soon as it closes. */
  if (napi_create_object(env, &resource) == napi_ok &&
      napi_open_callback_scope(env, resource, task->context, &callback) == napi_ok) {
    if (task->error != 0) {
      value = system_error(env, "send to netlink", task->error);
      if (value != NULL) napi_reject_deferred(env, task->deferred, value);
    } else if (napi_get_undefined(env, &value) == napi_ok) {
      napi_resolve_deferred(env, task->deferred, value);
    }
    napi_close_callback_scope(env, callback);
  }
  napi_close_handle_scope(env, handles);
}

static void on_send_closed(uv_handle_t *handle) {
  struct background_send *task = handle->data;
  napi_async_cleanup_hook_handle cleanup = task->cleanup;
  drop_user(task->sock);
  free(task);
  napi_remove_async_cleanup_hook(cleanup);
}

static void on_sent(uv_async_t *done) {
  struct background_send *task = done->data;
  napi_env env = task->sock->env;
  uv_thread_join(&task->thread);
  if (!task->javascript_ended) {
    settle(env, task);
    napi_async_destroy(env, task->context);
  }
  uv_close((uv_handle_t *)done, on_send_closed);
}

/* Nobody is left to be told, but the send must end before its memory goes: Node runs the loop until on_send_closed. */
static void on_thread_end_while_sending(napi_async_cleanup_hook_handle cleanup, void *data) {
  (void)cleanup;
  struct background_send *task = data;
  if (!task->javascript_ended && !uv_is_closing((uv_handle_t *)&task->done)) {
    napi_async_destroy(task->sock->env, task->context);
  }
  task->javascript_ended = true;
}

/* Starts the thread; undoes everything and returns an errno if it cannot. */
static int start_send(struct background_send *task, uv_loop_t *loop) {
  const uv_thread_options_t options = {.flags = UV_THREAD_HAS_STACK_SIZE, .stack_size = SEND_STACK_BYTES};
  int error = uv_async_init(loop, &task->done, on_sent);
  if (error != 0) {
    napi_remove_async_cleanup_hook(task->cleanup);
    free(task);
    return -error;
  }
  task->done.data = task;
  task->sock->users++;
  error = uv_thread_create_ex(&task->thread, &options, run_send, task);
  if (error == 0) return 0;
  task->javascript_ended = true; /* the caller settles */
  uv_close((uv_handle_t *)&task->done, on_send_closed);
  return -error;
}

/* sendInBackground(socket, bytes) → Promise, fulfilled when the kernel has carried out the request. */
napi_value send_in_background(napi_env env, napi_callback_info info) {
  napi_value arguments[2], promise, name;
  const uint8_t *bytes;
  size_t length;
  uv_loop_t *loop;
  if (!get_arguments(env, info, 2, arguments)) return NULL;
  struct netlink_socket *sock = get_socket(env, arguments[0]);
  if (sock == NULL || !get_bytes(env, arguments[1], "message", &bytes, &length)) return NULL;
  if (!succeeded(env, napi_get_uv_event_loop(env, &loop)) ||
      !succeeded(env, napi_create_string_utf8(env, "netctl:send", NAPI_AUTO_LENGTH, &name))) {
    return NULL;
  }
  struct background_send *task = calloc(1, sizeof *task + length);
  if (task == NULL) return throw_system_error(env, "calloc", ENOMEM);
  task->sock = sock;
  task->length = length;
  if (length > 0) memcpy(task->bytes, bytes, length);
  if (!succeeded(env, napi_async_init(env, NULL, name, &task->context))) {
    free(task);
    return NULL;
  }
  if (!succeeded(env, napi_create_promise(env, &task->deferred, &promise)) ||
      !succeeded(env, napi_add_async_cleanup_hook(env, on_thread_end_while_sending, task, &task->cleanup))) {
    napi_async_destroy(env, task->context);
    free(task);
    return NULL;
  }
  napi_async_context context = task->context;
  int error = start_send(task, loop);
  if (error == 0) return promise;
  napi_async_destroy(env, context);
  return throw_system_error(env, "start a thread", error);
}
