/*
 * Netlink sockets for JavaScript: opened in any network namespace, sent to and received from, watched by the event loop.
 *
 * In: a namespace, a protocol, bytes. Out: bytes and errors, as they come. Never: a file descriptor closed while a pool thread
 * or the loop still uses it, a socket lost to a receive overflow, a crash when a worker is terminated.
 *
 * Life of a socket: `users` counts the open socket, its poll and each background send; the last one closes the descriptor.
 * The memory goes when, besides, JavaScript has no object for it any more.
 */
#include "addon.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#define MESSAGES_PER_WAKE_UP 32

struct netlink_socket {
  int fd;
  int users;
  bool has_object;
  bool closed;
  bool watched;
  napi_env env;
  uv_poll_t poll;
  napi_ref callback;
  napi_async_context context;
  napi_async_cleanup_hook_handle cleanup;
};

static const napi_type_tag socket_tag = {0x6e657463746c2d6eULL, 0x65746c696e6b2d31ULL};

/* ---- life ---- */

static void free_unused(struct netlink_socket *sock) {
  if (sock->users == 0 && !sock->has_object) free(sock);
}

static void drop_user(struct netlink_socket *sock) {
  if (--sock->users > 0) return;
  close(sock->fd);
  free_unused(sock);
}

static void on_poll_closed(uv_handle_t *handle) {
  struct netlink_socket *sock = handle->data;
  napi_async_cleanup_hook_handle cleanup = sock->cleanup;
  drop_user(sock);
  napi_remove_async_cleanup_hook(cleanup);
}

static void close_socket(struct netlink_socket *sock) {
  if (sock->closed) return;
  sock->closed = true;
  if (sock->watched) {
    uv_poll_stop(&sock->poll);
    napi_delete_reference(sock->env, sock->callback);
    napi_async_destroy(sock->env, sock->context);
    uv_close((uv_handle_t *)&sock->poll, on_poll_closed);
  }
  drop_user(sock);
}

/* The thread ends: what the loop still knows has to go first, and Node waits until on_poll_closed. */
static void on_thread_end(napi_async_cleanup_hook_handle cleanup, void *data) {
  (void)cleanup;
  close_socket(data); /* if closed already, on_poll_closed is on its way */
}

static void on_object_gone(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  struct netlink_socket *sock = data;
  sock->has_object = false;
  /* A watched socket goes on without its object: its callback is what matters. */
  if (!sock->closed && !sock->watched) {
    close_socket(sock); /* frees it, unless a background send is under way */
  } else {
    free_unused(sock);
  }
}

static struct netlink_socket *get_socket(napi_env env, napi_value value, bool may_be_closed) {
  napi_valuetype type;
  bool ours = false;
  void *data = NULL;
  if (!succeeded(env, napi_typeof(env, value, &type))) return NULL;
  if (type == napi_object && napi_check_object_type_tag(env, value, &socket_tag, &ours) == napi_ok && ours &&
      napi_unwrap(env, value, &data) == napi_ok) {
    struct netlink_socket *sock = data;
    if (!sock->closed || may_be_closed) return sock;
    throw_system_error(env, "netlink socket is closed", EBADF);
    return NULL;
  }
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "socket: expected a netlink socket");
  return NULL;
}

/* ---- opening ---- */

static int open_protocol(const void *protocol) {
  return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, *(const int *)protocol);
}

/* What a kernel is too old for stays off; only the buffer and the address are needed. */
static bool set_up(int fd, int protocol, int receive_bytes) {
  const int on = 1;
  setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  if (protocol == NETLINK_ROUTE) setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_bytes, sizeof receive_bytes) != 0 &&
      setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes) != 0) {
    return false;
  }
  const struct sockaddr_nl any = {.nl_family = AF_NETLINK};
  return bind(fd, (const struct sockaddr *)&any, sizeof any) == 0;
}

/* openNetlink(netnsFd | -1, protocol, receiveBytes) → socket */
static napi_value open_netlink(napi_env env, napi_callback_info info) {
  napi_value arguments[3], object;
  int64_t netns, protocol, receive_bytes;
  struct addon *addon = addon_of(env);
  if (addon == NULL || !get_arguments(env, info, 3, arguments) ||
      !get_integer(env, arguments[0], "netnsFd", -1, INT32_MAX, &netns) ||
      !get_integer(env, arguments[1], "protocol", 0, 31, &protocol) ||
      !get_integer(env, arguments[2], "receiveBytes", 1, 1 << 30, &receive_bytes)) {
    return NULL;
  }
  const int wanted = (int)protocol;
  int fd = in_netns(addon, (int)netns, open_protocol, &wanted);
  if (fd < 0) return throw_system_error(env, "open a netlink socket", errno);
  if (!set_up(fd, wanted, (int)receive_bytes)) {
    int error = errno;
    close(fd);
    return throw_system_error(env, "set up a netlink socket", error);
  }
  struct netlink_socket *sock = calloc(1, sizeof *sock);
  if (sock == NULL) {
    close(fd);
    return throw_system_error(env, "calloc", ENOMEM);
  }
  *sock = (struct netlink_socket){.fd = fd, .users = 1, .has_object = true, .env = env};
  if (!succeeded(env, napi_create_object(env, &object)) ||
      !succeeded(env, napi_wrap(env, object, sock, on_object_gone, NULL, NULL))) {
    close(fd);
    free(sock);
    return NULL;
  }
  if (!succeeded(env, napi_type_tag_object(env, object, &socket_tag))) return NULL;
  return object;
}

static napi_value close_netlink(napi_env env, napi_callback_info info) {
  napi_value argument;
  if (!get_arguments(env, info, 1, &argument)) return NULL;
  struct netlink_socket *sock = get_socket(env, argument, true);
  if (sock != NULL) close_socket(sock);
  return NULL;
}

static napi_value change_group(napi_env env, napi_callback_info info, int option) {
  napi_value arguments[2];
  int64_t group;
  if (!get_arguments(env, info, 2, arguments)) return NULL;
  struct netlink_socket *sock = get_socket(env, arguments[0], false);
  if (sock == NULL || !get_integer(env, arguments[1], "group", 1, 1024, &group)) return NULL;
  const int value = (int)group;
  if (setsockopt(sock->fd, SOL_NETLINK, option, &value, sizeof value) != 0) {
    return throw_system_error(env, "netlink multicast group", errno);
  }
  return NULL;
}

static napi_value join_group(napi_env env, napi_callback_info info) {
  return change_group(env, info, NETLINK_ADD_MEMBERSHIP);
}

static napi_value leave_group(napi_env env, napi_callback_info info) {
  return change_group(env, info, NETLINK_DROP_MEMBERSHIP);
}

/* attachFilter(socket, bytes): a classic BPF program, struct sock_filter after struct sock_filter. */
static napi_value attach_filter(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  const uint8_t *bytes;
  size_t length;
  struct sock_filter program[64];
  if (!get_arguments(env, info, 2, arguments)) return NULL;
  struct netlink_socket *sock = get_socket(env, arguments[0], false);
  if (sock == NULL || !get_bytes(env, arguments[1], "filter", &bytes, &length)) return NULL;
  if (length == 0 || length > sizeof program || length % sizeof program[0] != 0) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_VALUE", "filter: expected 1 to 64 instructions of 8 bytes");
    return NULL;
  }
  memcpy(program, bytes, length);
  const struct sock_fprog filter = {(unsigned short)(length / sizeof program[0]), program};
  if (setsockopt(sock->fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) != 0) {
    return throw_system_error(env, "attach a socket filter", errno);
  }
  return NULL;
}

/* netnsOf(socket) → a new descriptor of the namespace that the socket lives in; the caller closes it. */
static napi_value netns_of(napi_env env, napi_callback_info info) {
  napi_value argument, result;
  if (!get_arguments(env, info, 1, &argument)) return NULL;
  struct netlink_socket *sock = get_socket(env, argument, false);
  if (sock == NULL) return NULL;
  int fd = ioctl(sock->fd, SIOCGSKNS);
  if (fd < 0) return throw_system_error(env, "namespace of a netlink socket", errno);
  return succeeded(env, napi_create_int32(env, fd, &result)) ? result : NULL;
}

/* ---- sending ---- */

static int send_bytes(int fd, const uint8_t *bytes, size_t length) {
  while (send(fd, bytes, length, 0) < 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

/* send(socket, bytes): the kernel carries out the request before this returns. */
static napi_value send_now(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  const uint8_t *bytes;
  size_t length;
  if (!get_arguments(env, info, 2, arguments)) return NULL;
  struct netlink_socket *sock = get_socket(env, arguments[0], false);
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
static napi_value send_in_background(napi_env env, napi_callback_info info) {
  napi_value arguments[2], promise, name;
  const uint8_t *bytes;
  size_t length;
  uv_loop_t *loop;
  if (!get_arguments(env, info, 2, arguments)) return NULL;
  struct netlink_socket *sock = get_socket(env, arguments[0], false);
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

/* ---- receiving ---- */

/* Bytes received from the kernel, 0 when nothing waits, or a negative errno; EMSGSIZE when the buffer was too small. */
static ssize_t receive_bytes(const struct netlink_socket *sock, struct addon *addon) {
  for (;;) {
    struct sockaddr_nl from = {0};
    struct iovec part = {addon->receive_buffer, RECEIVE_BYTES};
    struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part, .msg_iovlen = 1};
    ssize_t length = recvmsg(sock->fd, &message, MSG_DONTWAIT);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return errno == EAGAIN ? 0 : -errno;
    if (message.msg_flags & MSG_TRUNC) return -EMSGSIZE;
    if (length > 0 && from.nl_pid == 0) return length; /* other processes may write to us, too: not heard */
  }
}

/* receive(socket) → Buffer, or null when nothing waits */
static napi_value receive_now(napi_env env, napi_callback_info info) {
  napi_value argument, result;
  struct addon *addon = addon_of(env);
  if (addon == NULL || !get_arguments(env, info, 1, &argument)) return NULL;
  struct netlink_socket *sock = get_socket(env, argument, false);
  if (sock == NULL) return NULL;
  ssize_t length = receive_bytes(sock, addon);
  if (length < 0) return throw_system_error(env, "receive from netlink", (int)-length);
  napi_status status = length == 0 ? napi_get_null(env, &result)
                                   : napi_create_buffer_copy(env, (size_t)length, addon->receive_buffer, NULL, &result);
  return succeeded(env, status) ? result : NULL;
}

/* Calls back with (Buffer, null) or (null, Error). What the callback throws is an uncaught exception of the thread. */
static void call_back(struct netlink_socket *sock, ssize_t length, const struct addon *addon) {
  napi_env env = sock->env;
  napi_handle_scope scope;
  napi_value null, receiver, callback, arguments[2], ignored, thrown;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  if (napi_get_null(env, &null) == napi_ok && napi_get_global(env, &receiver) == napi_ok &&
      napi_get_reference_value(env, sock->callback, &callback) == napi_ok) {
    arguments[0] = arguments[1] = null;
    bool ready = length > 0 ? napi_create_buffer_copy(env, (size_t)length, addon->receive_buffer, NULL, &arguments[0]) == napi_ok
                            : (arguments[1] = system_error(env, "receive from netlink", (int)-length)) != NULL;
    if (ready) napi_make_callback(env, sock->context, receiver, callback, 2, arguments, &ignored);
  }
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending &&
      napi_get_and_clear_last_exception(env, &thrown) == napi_ok) {
    napi_fatal_exception(env, thrown);
  }
  napi_close_handle_scope(env, scope);
}

/*
 * An overflow of the receive buffer shows as poll error UV_EBADF, and libuv stops the poll: reading the error clears it, and
 * the poll starts again. Callbacks may close the socket.
 */
static void on_poll(uv_poll_t *poll, int status, int events) {
  (void)events;
  struct netlink_socket *sock = poll->data;
  void *addon = NULL;
  if (napi_get_instance_data(sock->env, &addon) != napi_ok || addon == NULL) return;
  for (int i = 0; i < MESSAGES_PER_WAKE_UP && !sock->closed; i++) {
    ssize_t length = receive_bytes(sock, addon);
    if (length == 0) break;
    call_back(sock, length, addon);
    if (length < 0 && length != -ENOBUFS && length != -EMSGSIZE) break;
  }
  if (status < 0 && !sock->closed) uv_poll_start(poll, UV_READABLE, on_poll);
}

/* onReadable(socket, callback): from now on the loop receives; keeps the loop alive until unref or close. */
static napi_value on_readable(napi_env env, napi_callback_info info) {
  napi_value arguments[2], name;
  napi_valuetype type;
  uv_loop_t *loop;
  if (!get_arguments(env, info, 2, arguments)) return NULL;
  struct netlink_socket *sock = get_socket(env, arguments[0], false);
  if (sock == NULL || !succeeded(env, napi_typeof(env, arguments[1], &type))) return NULL;
  if (type != napi_function) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "callback: expected a function");
    return NULL;
  }
  if (sock->watched) {
    napi_throw_error(env, "ERR_INVALID_STATE", "the netlink socket is watched already");
    return NULL;
  }
  if (!succeeded(env, napi_get_uv_event_loop(env, &loop)) ||
      !succeeded(env, napi_create_string_utf8(env, "netctl:netlink", NAPI_AUTO_LENGTH, &name)) ||
      !succeeded(env, napi_create_reference(env, arguments[1], 1, &sock->callback))) {
    return NULL;
  }
  if (!succeeded(env, napi_async_init(env, NULL, name, &sock->context))) {
    napi_delete_reference(env, sock->callback);
    return NULL;
  }
  if (!succeeded(env, napi_add_async_cleanup_hook(env, on_thread_end, sock, &sock->cleanup))) {
    napi_async_destroy(env, sock->context);
    napi_delete_reference(env, sock->callback);
    return NULL;
  }
  int error = uv_poll_init(loop, &sock->poll, sock->fd);
  if (error != 0) {
    napi_remove_async_cleanup_hook(sock->cleanup);
    napi_async_destroy(env, sock->context);
    napi_delete_reference(env, sock->callback);
    return throw_system_error(env, "watch a netlink socket", -error);
  }
  sock->poll.data = sock;
  sock->watched = true;
  sock->users++;
  error = uv_poll_start(&sock->poll, UV_READABLE, on_poll);
  return error == 0 ? NULL : throw_system_error(env, "watch a netlink socket", -error);
}

static napi_value keep_alive(napi_env env, napi_callback_info info, bool keep) {
  napi_value argument;
  if (!get_arguments(env, info, 1, &argument)) return NULL;
  struct netlink_socket *sock = get_socket(env, argument, false);
  if (sock == NULL) return NULL;
  if (sock->watched) (keep ? uv_ref : uv_unref)((uv_handle_t *)&sock->poll);
  return NULL;
}

static napi_value ref_socket(napi_env env, napi_callback_info info) { return keep_alive(env, info, true); }
static napi_value unref_socket(napi_env env, napi_callback_info info) { return keep_alive(env, info, false); }

napi_status define_netlink(napi_env env, napi_value exports) {
  const napi_property_descriptor functions[] = {
      FUNCTION("openNetlink", open_netlink),
      FUNCTION("close", close_netlink),
      FUNCTION("joinGroup", join_group),
      FUNCTION("leaveGroup", leave_group),
      FUNCTION("attachFilter", attach_filter),
      FUNCTION("netnsOf", netns_of),
      FUNCTION("send", send_now),
      FUNCTION("sendInBackground", send_in_background),
      FUNCTION("receive", receive_now),
      FUNCTION("onReadable", on_readable),
      FUNCTION("ref", ref_socket),
      FUNCTION("unref", unref_socket),
  };
  return define_functions(env, exports, functions, sizeof functions / sizeof functions[0]);
}
