/*
 * Netlink sockets for JavaScript: opened in any network namespace, set up, closed.
 *
 * In: a namespace, a protocol. Out: sockets. Never: a socket in another namespace than was asked for, a crash for an object
 * that is not one.
 */
#include "netlink.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLOSE_STACK_BYTES (64 * 1024)
#define CLOSE_LATER_MS 50

static const napi_type_tag socket_tag = {0x6e657463746c2d6eULL, 0x65746c696e6b2d31ULL};

static void free_unused(struct netlink_socket *sock) {
  if (sock->users == 0 && !sock->has_object) free(sock);
}

static bool start_detached(void *(*run)(void *), void *argument) {
  pthread_attr_t attributes;
  pthread_t thread;
  bool started = false;
  if (pthread_attr_init(&attributes) == 0) {
    started = pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0 &&
              pthread_attr_setstacksize(&attributes, CLOSE_STACK_BYTES) == 0 &&
              pthread_create(&thread, &attributes, run, argument) == 0;
    pthread_attr_destroy(&attributes);
  }
  return started;
}

static void *run_close(void *data) {
  close((int)(intptr_t)data);
  return NULL;
}

/* For packet sockets, whose closing takes the kernel 10 to 20 ms, in which it waits for all processors: a thread of its own waits with it. */
static void close_in_thread(int fd) {
  if (!start_detached(run_close, (void *)(intptr_t)fd)) close(fd);
}

/* Descriptors to be closed, the oldest first; one thread closes them, and ends when there are none. */
struct closing {
  int fd;
  struct timespec due;
  struct closing *next;
};
static struct {
  pthread_mutex_t lock;
  struct closing *first, **last;
  bool has_thread;
} later = {PTHREAD_MUTEX_INITIALIZER, NULL, &later.first, false};

static void *run_close_later(void *unused) {
  (void)unused;
  for (;;) {
    pthread_mutex_lock(&later.lock);
    struct closing *one = later.first;
    if (one == NULL) {
      later.has_thread = false;
      pthread_mutex_unlock(&later.lock);
      return NULL;
    }
    later.first = one->next;
    if (later.first == NULL) later.last = &later.first;
    pthread_mutex_unlock(&later.lock);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &one->due, NULL) == EINTR) continue;
    close(one->fd);
    free(one);
  }
}

/*
 * For sockets of netfilter: while the kernel clears away what a transaction has deleted in the namespace, their closing waits for that, and
 * whoever changes rules there waits for the closing. A moment later it waits for nothing.
 */
static void close_later(int fd) {
  struct closing *one = malloc(sizeof *one);
  if (one == NULL) {
    close_in_thread(fd);
    return;
  }
  *one = (struct closing){.fd = fd};
  clock_gettime(CLOCK_MONOTONIC, &one->due);
  one->due.tv_nsec += CLOSE_LATER_MS * 1000000L;
  if (one->due.tv_nsec >= 1000000000L) {
    one->due.tv_nsec -= 1000000000L;
    one->due.tv_sec++;
  }
  pthread_mutex_lock(&later.lock);
  *later.last = one;
  later.last = &one->next;
  bool must_start = !later.has_thread;
  later.has_thread = true;
  pthread_mutex_unlock(&later.lock);
  if (must_start && !start_detached(run_close_later, NULL)) run_close_later(NULL);
}

void drop_user(struct netlink_socket *sock) {
  if (--sock->users > 0) return;
  if (!sock->slow_to_close) close(sock->fd);
  else if (sock->kernel_only) close_later(sock->fd);
  else close_in_thread(sock->fd);
  free_unused(sock);
}

static void on_poll_closed(uv_handle_t *handle) {
  struct netlink_socket *sock = handle->data;
  napi_async_cleanup_hook_handle cleanup = sock->cleanup;
  drop_user(sock);
  napi_remove_async_cleanup_hook(cleanup);
}

void close_socket(struct netlink_socket *sock) {
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

struct netlink_socket *get_any_socket(napi_env env, napi_value value) {
  napi_valuetype type;
  bool ours = false;
  void *data = NULL;
  if (!succeeded(env, napi_typeof(env, value, &type))) return NULL;
  if (type == napi_object && napi_check_object_type_tag(env, value, &socket_tag, &ours) == napi_ok && ours &&
      napi_unwrap(env, value, &data) == napi_ok) {
    return data;
  }
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "socket: expected a netlink socket");
  return NULL;
}

struct netlink_socket *get_socket(napi_env env, napi_value value) {
  struct netlink_socket *sock = get_any_socket(env, value);
  if (sock == NULL || !sock->closed) return sock;
  throw_system_error(env, "netlink socket is closed", EBADF);
  return NULL;
}

napi_value wrap_socket(napi_env env, int fd, bool kernel_only) {
  napi_value object;
  struct netlink_socket *sock = calloc(1, sizeof *sock);
  if (sock == NULL) {
    close(fd);
    return throw_system_error(env, "calloc", ENOMEM);
  }
  *sock = (struct netlink_socket){.fd = fd, .kernel_only = kernel_only, .users = 1, .has_object = true, .env = env};
  if (!succeeded(env, napi_create_object(env, &object)) ||
      !succeeded(env, napi_wrap(env, object, sock, on_object_gone, NULL, NULL))) {
    close(fd);
    free(sock);
    return NULL;
  }
  return succeeded(env, napi_type_tag_object(env, object, &socket_tag)) ? object : NULL;
}

static int open_protocol(const void *protocol) {
  return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, *(const int *)protocol);
}

/* What a kernel is too old for stays off; only the buffer and the address are needed. */
static bool set_up(int fd, int protocol, int receive_bytes) {
  const int on = 1;
  setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  if (protocol == NETLINK_ROUTE) setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
  /* A transaction of nftables is one send, however long; a limit only, nothing is set aside for it. */
  const int send_bytes = 256 << 20;
  if (protocol == NETLINK_NETFILTER) setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &send_bytes, sizeof send_bytes);
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_bytes, sizeof receive_bytes) != 0 &&
      setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes) != 0) {
    return false;
  }
  const struct sockaddr_nl any = {.nl_family = AF_NETLINK};
  return bind(fd, (const struct sockaddr *)&any, sizeof any) == 0;
}

/* openNetlink(netnsFd | -1, protocol, receiveBytes) → socket */
static napi_value open_netlink(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
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
  return wrap_socket(env, fd, true);
}

static napi_value close_netlink(napi_env env, napi_callback_info info) {
  napi_value argument;
  if (!get_arguments(env, info, 1, &argument)) return NULL;
  struct netlink_socket *sock = get_any_socket(env, argument);
  if (sock != NULL) close_socket(sock);
  return NULL;
}

/* closeInBackground(socket): as close; the descriptor goes a moment later, that of a netlink socket after CLOSE_LATER_MS. */
static napi_value close_in_background(napi_env env, napi_callback_info info) {
  napi_value argument;
  if (!get_arguments(env, info, 1, &argument)) return NULL;
  struct netlink_socket *sock = get_any_socket(env, argument);
  if (sock == NULL) return NULL;
  sock->slow_to_close = true;
  close_socket(sock);
  return NULL;
}

static napi_value change_group(napi_env env, napi_callback_info info, int option) {
  napi_value arguments[2];
  int64_t group;
  if (!get_arguments(env, info, 2, arguments)) return NULL;
  struct netlink_socket *sock = get_socket(env, arguments[0]);
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

/*
 * listenEverywhere(socket): it hears the groups that it joins in each namespace, too, that its own has an id for (RTM_NEWNSID); onReadable
 * tells the id. None of them is kept alive by that.
 */
static napi_value listen_everywhere(napi_env env, napi_callback_info info) {
  napi_value argument;
  if (!get_arguments(env, info, 1, &argument)) return NULL;
  struct netlink_socket *sock = get_socket(env, argument);
  if (sock == NULL) return NULL;
  const int on = 1;
  if (setsockopt(sock->fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, &on, sizeof on) != 0) {
    return throw_system_error(env, "listen in other namespaces", errno);
  }
  return NULL;
}

/* attachFilter(socket, bytes): a classic BPF program, struct sock_filter after struct sock_filter. */
static napi_value attach_filter(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  const uint8_t *bytes;
  size_t length;
  struct sock_filter program[64];
  if (!get_arguments(env, info, 2, arguments)) return NULL;
  struct netlink_socket *sock = get_socket(env, arguments[0]);
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
  struct netlink_socket *sock = get_socket(env, argument);
  if (sock == NULL) return NULL;
  int fd = ioctl(sock->fd, SIOCGSKNS);
  if (fd < 0) return throw_system_error(env, "namespace of a netlink socket", errno);
  return succeeded(env, napi_create_int32(env, fd, &result)) ? result : NULL;
}

napi_status define_netlink(napi_env env, napi_value exports) {
  const napi_property_descriptor functions[] = {
      FUNCTION("openNetlink", open_netlink),
      FUNCTION("close", close_netlink),
      FUNCTION("closeInBackground", close_in_background),
      FUNCTION("joinGroup", join_group),
      FUNCTION("leaveGroup", leave_group),
      FUNCTION("listenEverywhere", listen_everywhere),
      FUNCTION("attachFilter", attach_filter),
      FUNCTION("netnsOf", netns_of),
      FUNCTION("send", send_now),
      FUNCTION("sendInBackground", send_in_background),
      FUNCTION("beginSend", begin_send),
      FUNCTION("finishSend", finish_send),
      FUNCTION("runChains", run_chains),
      FUNCTION("receive", receive_now),
      FUNCTION("receiveInBackground", receive_in_background),
      FUNCTION("onReadable", on_readable),
      FUNCTION("ref", ref_socket),
      FUNCTION("unref", unref_socket),
  };
  return define_functions(env, exports, functions, sizeof functions / sizeof functions[0]);
}
