/*
 * The addon's entry point.
 *
 * In: the JavaScript thread that loads it. Out: the exports of all parts. Never: state shared by two JavaScript threads.
 */
#include "addon.h"
#include "standby.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

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
