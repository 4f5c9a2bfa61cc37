/*
 * Work on a thread of its own, with a promise for its end. The kernel may sleep in it for tens of milliseconds, and a few of those would
 * fill the pool of four that all file access of Node.js shares. The thread starts in the namespace of the JavaScript thread, which never is
 * another one when JavaScript runs.
 *
 * Life: from start_in_background on, the task belongs to it; `release` is called once, on the JavaScript thread, whatever happens. Never: a
 * task whose memory goes before its thread has ended, also when the JavaScript thread ends meanwhile.
 */
#ifndef NETCTL_BACKGROUND_H
#define NETCTL_BACKGROUND_H

#include "addon.h"

#include <uv.h>

/* First member of a task. */
struct background {
  /* On the thread. Returns an errno, or 0. */
  int (*run)(struct background *task);
  /* What the promise is fulfilled with, once run has returned 0; NULL: nothing can be told any more. */
  napi_value (*result)(napi_env env, struct background *task);
  void (*release)(struct background *task);
  /* For the error that the promise is rejected with. */
  const char *what;

  napi_env env;
  napi_deferred deferred;
  napi_async_context context;
  napi_async_cleanup_hook_handle cleanup;
  bool javascript_ended;
  uv_thread_t thread;
  uv_async_t done;
  int error;
};

/* Returns the promise, or NULL with an exception pending. `name` is what Node.js calls such work. */
napi_value start_in_background(napi_env env, struct background *task, const char *name);

#endif
