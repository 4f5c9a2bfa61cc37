/*
 * The addon's entry point and what its files share: arguments, errors, the way into a namespace and back.
 *
 * In: calls from src/linux/real/native.ts. Out: exports. Never: state shared by two JavaScript threads.
 */
#include "addon.h"
#include "standby.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

static void free_addon(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  struct addon *addon = data;
  standby_free(addon->standby);
  close(addon->own_netns);
  free(addon);
}

NAPI_MODULE_INIT() {
  struct addon *addon = malloc(sizeof *addon);
  if (addon == NULL) return throw_system_error(env, "malloc", ENOMEM);
  addon->standby = NULL;
  addon->sending = NULL;
  addon->own_netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (addon->own_netns < 0) {
    int error = errno;
    free(addon);
    return throw_system_error(env, "open /proc/thread-self/ns/net", error);
  }
  if (!succeeded(env, napi_set_instance_data(env, addon, free_addon, NULL))) {
    free_addon(env, addon, NULL);
    return NULL;
  }
  if (!succeeded(env, define_netlink(env, exports)) || !succeeded(env, define_files(env, exports)) ||
      !succeeded(env, define_packets(env, exports))) {
    return NULL;
  }
  return exports;
}

int in_netns(const struct addon *addon, int netns, int (*action)(const void *), const void *argument) {
  if (netns >= 0 && setns(netns, CLONE_NEWNET) != 0) return -1;
  int result = action(argument);
  int error = errno;
  if (netns >= 0 && setns(addon->own_netns, CLONE_NEWNET) != 0) {
    perror("netctl: cannot return to the agent's network namespace");
    abort();
  }
  errno = error;
  return result;
}

struct addon *addon_of(napi_env env) {
  void *data = NULL;
  if (!succeeded(env, napi_get_instance_data(env, &data))) return NULL;
  if (data == NULL) napi_throw_error(env, "ERR_INVALID_STATE", "the addon is not initialised");
  return data;
}

bool get_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *values) {
  return succeeded(env, napi_get_cb_info(env, info, &count, values, NULL, NULL));
}

static bool refuse(napi_env env, const char *name, const char *expected) {
  char text[160];
  snprintf(text, sizeof text, "%s: expected %s", name, expected);
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", text);
  return false;
}

bool get_integer(napi_env env, napi_value value, const char *name, int64_t min, int64_t max, int64_t *result) {
  napi_valuetype type;
  double number;
  if (!succeeded(env, napi_typeof(env, value, &type))) return false;
  if (type != napi_number) return refuse(env, name, "an integer");
  if (!succeeded(env, napi_get_value_double(env, value, &number))) return false;
  if (!(number >= (double)min && number <= (double)max) || floor(number) != number) {
    char expected[80];
    snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)min, (long long)max);
    return refuse(env, name, expected);
  }
  *result = (int64_t)number;
  return true;
}

bool get_bytes(napi_env env, napi_value value, const char *name, const uint8_t **bytes, size_t *length) {
  bool is_array;
  napi_typedarray_type type;
  void *data;
  if (!succeeded(env, napi_is_typedarray(env, value, &is_array))) return false;
  if (!is_array) return refuse(env, name, "a Buffer or Uint8Array");
  if (!succeeded(env, napi_get_typedarray_info(env, value, &type, length, &data, NULL, NULL))) return false;
  if (type != napi_uint8_array) return refuse(env, name, "a Buffer or Uint8Array");
  *bytes = data;
  return true;
}

bool get_path(napi_env env, napi_value value, const char *name, char *path, size_t size, size_t *length) {
  napi_valuetype type;
  if (!succeeded(env, napi_typeof(env, value, &type))) return false;
  if (type != napi_string) return refuse(env, name, "a string");
  if (!succeeded(env, napi_get_value_string_utf8(env, value, NULL, 0, length))) return false;
  if (*length == 0 || *length >= size) return refuse(env, name, "a path that is neither empty nor too long");
  if (!succeeded(env, napi_get_value_string_utf8(env, value, path, size, length))) return false;
  if (memchr(path, 0, *length) != NULL) return refuse(env, name, "a path without NUL");
  return true;
}

bool succeeded(napi_env env, napi_status status) {
  if (status == napi_ok) return true;
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (!pending) {
    const napi_extended_error_info *info = NULL;
    napi_get_last_error_info(env, &info);
    napi_throw_error(env, "ERR_NODE_API", info && info->error_message ? info->error_message : "Node-API call failed");
  }
  return false;
}

napi_value system_error(napi_env env, const char *syscall, int error) {
  char text[256], reason[96], name[32];
  uv_err_name_r(-error, name, sizeof name);
  uv_strerror_r(-error, reason, sizeof reason);
  snprintf(text, sizeof text, "%s: %s (%s)", syscall, reason, name);
  napi_value result, message, code, number, call;
  if (napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) != napi_ok ||
      napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &code) != napi_ok ||
      napi_create_string_utf8(env, syscall, NAPI_AUTO_LENGTH, &call) != napi_ok ||
      napi_create_int32(env, error, &number) != napi_ok ||
      napi_create_error(env, code, message, &result) != napi_ok ||
      napi_set_named_property(env, result, "errno", number) != napi_ok ||
      napi_set_named_property(env, result, "syscall", call) != napi_ok) {
    return NULL;
  }
  return result;
}

napi_value throw_system_error(napi_env env, const char *syscall, int error) {
  napi_value thrown = system_error(env, syscall, error);
  if (thrown != NULL) napi_throw(env, thrown);
  return NULL;
}

napi_status define_functions(napi_env env, napi_value exports, const napi_property_descriptor *functions, size_t count) {
  return napi_define_properties(env, exports, count, functions);
}
