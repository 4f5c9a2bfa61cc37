/*
 * Receiving from a netlink socket: what waits now, by the event loop, or on a thread of its own.
 *
 * In: a socket. Out: bytes and errors as they come. Never: a socket lost to a receive overflow, a crash when the JavaScript
 * thread ends with a watched socket.
 */
#include "background.h"
#include "netlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MESSAGES_PER_WAKE_UP 32
#define OWN_NETNS (-1)
#define CONTROL_BYTES 64

/* The id by which the socket's namespace knows the one that a message is about; OWN_NETNS for its own. */
static int netns_of_message(struct msghdr *message) {
  int id = OWN_NETNS;
  for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
    if (part->cmsg_level == SOL_NETLINK && part->cmsg_type == NETLINK_LISTEN_ALL_NSID)
      memcpy(&id, CMSG_DATA(part), sizeof id);
  }
  return id;
}

/* Bytes received, 0 when nothing waits, or a negative errno; EMSGSIZE when the buffer was too small. */
static ssize_t receive_bytes(const struct netlink_socket *sock, uint8_t buffer[RECEIVE_BYTES], int *netns_id) {
  for (;;) {
    struct sockaddr_nl from = {0};
    struct iovec part = {buffer, RECEIVE_BYTES};
    alignas(struct cmsghdr) char control[CONTROL_BYTES];
    struct msghdr message = {.msg_name = &from,
                             .msg_namelen = sizeof from,
                             .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t length = recvmsg(sock->fd, &message, MSG_DONTWAIT);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return errno == EAGAIN ? 0 : -errno;
    if (message.msg_flags & MSG_TRUNC) return -EMSGSIZE;
    *netns_id = netns_of_message(&message);
    if (length > 0 && (!sock->kernel_only || from.nl_pid == 0)) return length; /* other processes may write to us, too: not heard */
  }
}

/* receive(socket) → Buffer, or null when nothing waits */
napi_value receive_now(napi_env env, napi_callback_info info) {
  napi_value argument, result;
  struct addon *addon = addon_of(env);
  if (addon == NULL || !get_arguments(env, info, 1, &argument)) return NULL;
  struct netlink_socket *sock = get_socket(env, argument);
  if (sock == NULL) return NULL;
  int ignored;
  ssize_t length = receive_bytes(sock, addon->receive_buffer, &ignored);
  if (length < 0) return throw_system_error(env, "receive from netlink", (int)-length);
  napi_status status = length == 0 ? napi_get_null(env, &result)
                                   : napi_create_buffer_copy(env, (size_t)length, addon->receive_buffer, NULL, &result);
  return succeeded(env, status) ? result : NULL;
}

/* What waits, as much as comes until a quarter of a MiB is there: of a list, the kernel makes the next piece while one is received. */
struct background_receive {
  struct background background;
  struct netlink_socket *sock;
  size_t length;
  uint8_t bytes[2 * RECEIVE_BYTES];
};

static int run_receive(struct background *background) {
  struct background_receive *task = (struct background_receive *)background;
  while (task->length <= RECEIVE_BYTES) {
    int ignored;
    ssize_t length = receive_bytes(task->sock, task->bytes + task->length, &ignored);
    if (length <= 0) return (int)-length;
    task->length += (size_t)length;
  }
  return 0;
}

static napi_value received(napi_env env, struct background *background) {
  const struct background_receive *task = (const struct background_receive *)background;
  napi_value value;
  napi_status status = task->length == 0 ? napi_get_null(env, &value)
                                         : napi_create_buffer_copy(env, task->length, task->bytes, NULL, &value);
  return status == napi_ok ? value : NULL;
}

static void release_receive(struct background *background) {
  drop_user(((struct background_receive *)background)->sock);
  free(background);
}

/* receiveInBackground(socket) → Promise of a Buffer, or of null when nothing waits */
napi_value receive_in_background(napi_env env, napi_callback_info info) {
  napi_value argument;
  if (!get_arguments(env, info, 1, &argument)) return NULL;
  struct netlink_socket *sock = get_socket(env, argument);
  if (sock == NULL) return NULL;
  struct background_receive *task = malloc(sizeof *task);
  if (task == NULL) return throw_system_error(env, "malloc", ENOMEM);
  task->background =
      (struct background){.run = run_receive, .result = received, .release = release_receive, .what = "receive from netlink"};
  task->sock = sock;
  task->length = 0;
  sock->users++;
  return start_in_background(env, &task->background, "netctl:receive");
}

/* Calls back with (Buffer, null, namespace) or (null, Error, namespace). What the callback throws is an uncaught exception of the thread. */
static void call_back(struct netlink_socket *sock, ssize_t length, int netns_id, const struct addon *addon) {
  napi_env env = sock->env;
  napi_handle_scope scope;
  napi_value null, receiver, callback, arguments[3], ignored, thrown;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  if (napi_get_null(env, &null) == napi_ok && napi_get_global(env, &receiver) == napi_ok &&
      napi_get_reference_value(env, sock->callback, &callback) == napi_ok) {
    arguments[0] = arguments[1] = null;
    bool ready = length > 0 ? napi_create_buffer_copy(env, (size_t)length, addon->receive_buffer, NULL, &arguments[0]) == napi_ok
                            : (arguments[1] = system_error(env, "receive from netlink", (int)-length)) != NULL;
    ready = ready && napi_create_int32(env, netns_id, &arguments[2]) == napi_ok;
    if (ready) napi_make_callback(env, sock->context, receiver, callback, 3, arguments, &ignored);
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
    int netns_id = OWN_NETNS;
    ssize_t length = receive_bytes(sock, ((struct addon *)addon)->receive_buffer, &netns_id);
    if (length == 0) break;
    call_back(sock, length, netns_id, addon);
    if (length < 0 && length != -ENOBUFS && length != -EMSGSIZE) break;
  }
  if (status < 0 && !sock->closed) uv_poll_start(poll, UV_READABLE, on_poll);
}

/* The thread ends: what the loop still knows has to go first, and Node waits until on_poll_closed. */
static void on_thread_end(napi_async_cleanup_hook_handle cleanup, void *data) {
  (void)cleanup;
  close_socket(data); /* if closed already, on_poll_closed is on its way */
}

/* onReadable(socket, callback): from now on the loop receives; keeps the loop alive until unref or close. */
napi_value on_readable(napi_env env, napi_callback_info info) {
  napi_value arguments[2], name;
  napi_valuetype type;
  uv_loop_t *loop;
  if (!get_arguments(env, info, 2, arguments)) return NULL;
  struct netlink_socket *sock = get_socket(env, arguments[0]);
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
  struct netlink_socket *sock = get_socket(env, argument);
  if (sock == NULL) return NULL;
  if (sock->watched) (keep ? uv_ref : uv_unref)((uv_handle_t *)&sock->poll);
  return NULL;
}

napi_value ref_socket(napi_env env, napi_callback_info info) { return keep_alive(env, info, true); }
napi_value unref_socket(napi_env env, napi_callback_info info) { return keep_alive(env, info, false); }
