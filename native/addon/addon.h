/*
 * What the files of the addon share: one instance per JavaScript thread, checked arguments, errors.
 *
 * In: JavaScript values. Out: C values, or a pending JavaScript exception. Never: a crash for a wrong argument, a decision
 * about what the bytes mean (that is TypeScript, src/linux/netlink/).
 */
#ifndef NETCTL_ADDON_H
#define NETCTL_ADDON_H

#define NAPI_VERSION 8
#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Netlink answers are at most 32 KiB by default; a device with hundreds of virtual functions needs more. */
#define RECEIVE_BYTES (256 * 1024)

struct standby;
struct netlink_socket;

struct addon {
  int own_netns; /* the namespace of this JavaScript thread */
  struct standby *standby; /* NULL until it is needed */
  struct netlink_socket *sending; /* on which it was told to send, until its end was waited for */
  uint8_t receive_buffer[RECEIVE_BYTES];
};

/* The instance of this thread, or NULL with an exception pending. */
struct addon *addon_of(napi_env env);

/* Reads `count` arguments; missing ones are `undefined`. */
bool get_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *values);
bool get_integer(napi_env env, napi_value value, const char *name, int64_t min, int64_t max, int64_t *result);
/* The bytes belong to JavaScript: valid until the function returns. */
bool get_bytes(napi_env env, napi_value value, const char *name, const uint8_t **bytes, size_t *length);
/* A path of at most size-1 bytes, without NUL inside. */
bool get_path(napi_env env, napi_value value, const char *name, char *path, size_t size, size_t *length);

/* True when the call succeeded; else an exception is pending. */
bool succeeded(napi_env env, napi_status status);
/* An Error with `code` (EPERM), `errno` (positive number) and `syscall`; `error` as in errno. */
napi_value system_error(napi_env env, const char *syscall, int error);
/* Throws it; always NULL, so that callers can return it. */
napi_value throw_system_error(napi_env env, const char *syscall, int error);

/*
 * Runs `action` with the calling thread inside the namespace and comes back before it returns. `netns` -1: stays where it is.
 * Returns the action's result, or -1 with errno. Aborts the process if the way back fails: a JavaScript thread in a foreign
 * namespace would configure a container as if it were the host.
 */
int in_netns(const struct addon *addon, int netns, int (*action)(const void *), const void *argument);

napi_status define_functions(napi_env env, napi_value exports, const napi_property_descriptor *functions, size_t count);
napi_status define_netlink(napi_env env, napi_value exports);
napi_status define_files(napi_env env, napi_value exports);
napi_status define_packets(napi_env env, napi_value exports);

#define FUNCTION(name, call) {name, NULL, call, NULL, NULL, NULL, napi_enumerable, NULL}

#endif
