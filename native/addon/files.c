/*
 * What Node.js cannot do with files and sockets: /proc/sys of another network namespace, who is at the other end of a unix
 * socket, a datagram to a unix socket, a packet out of another network namespace.
 *
 * In: descriptors, paths, bytes. Out: bytes, numbers, errors. Never: a descriptor left open.
 */
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PROC_SYS "/proc/sys/"

struct open_request {
  const char *path;
  int flags;
};

static int open_file(const void *argument) {
  const struct open_request *request = argument;
  return open(request->path, request->flags | O_CLOEXEC);
}

/* Arguments (netnsFd | -1, path): a descriptor that acts on that namespace wherever it is used, or -1 with an exception. */
static int open_sysctl(napi_env env, const napi_value *arguments, int flags) {
  char path[512];
  size_t length;
  int64_t netns;
  struct addon *addon = addon_of(env);
  if (addon == NULL || !get_integer(env, arguments[0], "netnsFd", -1, INT32_MAX, &netns) ||
      !get_path(env, arguments[1], "path", path, sizeof path, &length)) {
    return -1;
  }
  if (strncmp(path, PROC_SYS, strlen(PROC_SYS)) != 0 || strstr(path, "/../") != NULL) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_VALUE", "path: expected a file below " PROC_SYS);
    return -1;
  }
  const struct open_request request = {path, flags};
  int fd = in_netns(addon, (int)netns, open_file, &request);
  if (fd < 0) throw_system_error(env, "open a sysctl", errno);
  return fd;
}

/* readSysctl(netnsFd | -1, path) → Buffer */
static napi_value read_sysctl(napi_env env, napi_callback_info info) {
  napi_value arguments[2], result;
  char bytes[4096];
  if (!get_arguments(env, info, 2, arguments)) return NULL;
  int fd = open_sysctl(env, arguments, O_RDONLY);
  if (fd < 0) return NULL;
  ssize_t length = read(fd, bytes, sizeof bytes);
  int error = errno;
  close(fd);
  if (length < 0) return throw_system_error(env, "read a sysctl", error);
  return succeeded(env, napi_create_buffer_copy(env, (size_t)length, bytes, NULL, &result)) ? result : NULL;
}

/* writeSysctl(netnsFd | -1, path, bytes) */
static napi_value write_sysctl(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  const uint8_t *bytes;
  size_t length;
  if (!get_arguments(env, info, 3, arguments) || !get_bytes(env, arguments[2], "value", &bytes, &length)) return NULL;
  int fd = open_sysctl(env, arguments, O_WRONLY);
  if (fd < 0) return NULL;
  ssize_t written = write(fd, bytes, length);
  int error = written < 0 ? errno : EIO;
  close(fd);
  return written == (ssize_t)length ? NULL : throw_system_error(env, "write a sysctl", error);
}

/* isNetworkNamespace(fd) → boolean */
static napi_value is_network_namespace(napi_env env, napi_callback_info info) {
  napi_value argument, result;
  int64_t fd;
  if (!get_arguments(env, info, 1, &argument) || !get_integer(env, argument, "fd", 0, INT32_MAX, &fd)) return NULL;
  bool yes = ioctl((int)fd, NS_GET_NSTYPE) == CLONE_NEWNET;
  return succeeded(env, napi_get_boolean(env, yes, &result)) ? result : NULL;
}

static bool set_number(napi_env env, napi_value object, const char *name, int64_t number) {
  napi_value value;
  return succeeded(env, napi_create_int64(env, number, &value)) &&
         succeeded(env, napi_set_named_property(env, object, name, value));
}

/* peerCredentials(fd of a connected unix stream socket) → {pid, uid, gid} */
static napi_value peer_credentials(napi_env env, napi_callback_info info) {
  napi_value argument, result;
  int64_t fd;
  if (!get_arguments(env, info, 1, &argument) || !get_integer(env, argument, "fd", 0, INT32_MAX, &fd)) return NULL;
  struct ucred credentials;
  struct sockaddr_un address = {0};
  socklen_t size = sizeof credentials, address_size = sizeof address;
  /* Other socket families answer SO_PEERCRED with nobody's numbers: those must not pass for an identity. */
  if (getsockname((int)fd, (struct sockaddr *)&address, &address_size) != 0 ||
      getsockopt((int)fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return throw_system_error(env, "credentials of a peer", errno);
  }
  /* A process of an outer PID namespace has number 0 here; without a peer there is no user either. */
  if (address.sun_family != AF_UNIX || credentials.uid == (uid_t)-1) {
    return throw_system_error(env, "credentials of a peer", ENOTCONN);
  }
  if (!succeeded(env, napi_create_object(env, &result)) || !set_number(env, result, "pid", credentials.pid) ||
      !set_number(env, result, "uid", credentials.uid) || !set_number(env, result, "gid", credentials.gid)) {
    return NULL;
  }
  return result;
}

/* sendDatagram(path, bytes): to a unix datagram socket; a path that begins with '@' is an abstract name. */
static napi_value send_datagram(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  const uint8_t *bytes;
  size_t path_length, length;
  if (!get_arguments(env, info, 2, arguments) ||
      !get_path(env, arguments[0], "path", to.sun_path, sizeof to.sun_path, &path_length) ||
      !get_bytes(env, arguments[1], "datagram", &bytes, &length)) {
    return NULL;
  }
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_length);
  if (to.sun_path[0] == '@') {
    to.sun_path[0] = 0;
  } else {
    size++;
  }
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return throw_system_error(env, "open a unix socket", errno);
  ssize_t sent = sendto(fd, bytes, length, MSG_NOSIGNAL, (const struct sockaddr *)&to, size);
  int error = errno;
  close(fd);
  return sent >= 0 ? NULL : throw_system_error(env, "send a datagram", error);
}

static int open_raw(const void *argument) {
  return socket(*(const int *)argument, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW);
}

/* sendPacket(netnsFd | -1, bytes): a whole IPv4 or IPv6 packet, to the destination in its header, from that namespace. */
static napi_value send_packet(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  const uint8_t *bytes;
  size_t length;
  int64_t netns;
  struct addon *addon = addon_of(env);
  if (addon == NULL || !get_arguments(env, info, 2, arguments) ||
      !get_integer(env, arguments[0], "netnsFd", -1, INT32_MAX, &netns) ||
      !get_bytes(env, arguments[1], "packet", &bytes, &length)) {
    return NULL;
  }
  int version = length > 0 ? bytes[0] >> 4 : 0;
  if (!(version == 4 && length >= 20) && !(version == 6 && length >= 40)) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_VALUE", "packet: expected one of IPv4 or IPv6, with its header");
    return NULL;
  }
  struct sockaddr_in to4 = {.sin_family = AF_INET};
  struct sockaddr_in6 to6 = {.sin6_family = AF_INET6};
  if (version == 4) {
    memcpy(&to4.sin_addr, bytes + 16, sizeof to4.sin_addr);
  } else {
    memcpy(&to6.sin6_addr, bytes + 24, sizeof to6.sin6_addr);
  }
  int family = version == 4 ? AF_INET : AF_INET6;
  int fd = in_netns(addon, (int)netns, open_raw, &family);
  if (fd < 0) return throw_system_error(env, "open a raw socket", errno);
  const struct sockaddr *to = version == 4 ? (const struct sockaddr *)&to4 : (const struct sockaddr *)&to6;
  ssize_t sent = sendto(fd, bytes, length, 0, to, version == 4 ? sizeof to4 : sizeof to6);
  int error = errno;
  close(fd);
  return sent >= 0 ? NULL : throw_system_error(env, "send a packet", error);
}

napi_status define_files(napi_env env, napi_value exports) {
  const napi_property_descriptor functions[] = {
      FUNCTION("readSysctl", read_sysctl),
      FUNCTION("writeSysctl", write_sysctl),
      FUNCTION("isNetworkNamespace", is_network_namespace),
      FUNCTION("peerCredentials", peer_credentials),
      FUNCTION("sendDatagram", send_datagram),
      FUNCTION("sendPacket", send_packet),
  };
  return define_functions(env, exports, functions, sizeof functions / sizeof functions[0]);
}
