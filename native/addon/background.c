/*
 * Work on a thread of its own (background.h).
 *
 * In: a task. Out: a promise. Never: a promise settled outside a callback scope; a call into JavaScript that has ended.
 */
#include "background.h"

#define STACK_BYTES (128 * 1024)

static void run(void *data) {
  struct background *task = data;
  task->error = task->run(task);
  uv_async_send(&task->done);
}

static void settle(napi_env env, struct background *task) {
  napi_handle_scope handles;
  napi_callback_scope callback;
  napi_value resource, value;
  if (napi_open_handle_scope(env, &handles) != napi_ok) return;
  /* The scope makes what waits for the promise run as soon as it closes. */
  if (napi_create_object(env, &resource) == napi_ok &&
      napi_open_callback_scope(env, resource, task->context, &callback) == napi_ok) {
    if (task->error != 0) {
      value = system_error(env, task->what, task->error);
      if (value != NULL) napi_reject_deferred(env, task->deferred, value);
    } else if ((value = task->result(env, task)) != NULL) {
      napi_resolve_deferred(env, task->deferred, value);
    }
    napi_close_callback_scope(env, callback);
  }
  napi_close_handle_scope(env, handles);
}

static void on_closed(uv_handle_t *handle) {
  struct background *task = handle->data;
  napi_async_cleanup_hook_handle cleanup = task->cleanup;
  task->release(task);
  napi_remove_async_cleanup_hook(cleanup);
}

static void on_done(uv_async_t *done) {
  struct background *task = done->data;
  uv_thread_join(&task->thread);
  if (!task->javascript_ended) {
    settle(task->env, task);
    napi_async_destroy(task->env, task->context);
  }
  uv_close((uv_handle_t *)done, on_closed);
}

/* Nobody is left to be told, but the thread must end before its memory goes: Node runs the loop until on_closed. */
static void on_javascript_end(napi_async_cleanup_hook_handle cleanup, void *data) {
  (void)cleanup;
  struct background *task = data;
  if (!task->javascript_ended && !uv_is_closing((uv_handle_t *)&task->done)) {
    napi_async_destroy(task->env, task->context);
  }
  task->javascript_ended = true;
}

/* Starts the thread; releases the task and returns an errno if it cannot. */
static int start(struct background *task, uv_loop_t *loop) {
  const uv_thread_options_t options = {.flags = UV_THREAD_HAS_STACK_SIZE, .stack_size = STACK_BYTES};
  int error = uv_async_init(loop, &task->done, on_done);
  if (error != 0) {
    napi_remove_async_cleanup_hook(task->cleanup);
    task->release(task);
    return -error;
  }
  task->done.data = task;
  error = uv_thread_create_ex(&task->thread, &options, run, task);
  if (error == 0) return 0;
  task->javascript_ended = true; /* the caller settles */
  uv_close((uv_handle_t *)&task->done, on_closed);
  return -error;
}

napi_value start_in_background(napi_env env, struct background *task, const char *name) {
  napi_value promise, resource_name;
  uv_loop_t *loop;
  task->env = env;
  if (!succeeded(env, napi_get_uv_event_loop(env, &loop)) ||
      !succeeded(env, napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &resource_name)) ||
      !succeeded(env, napi_async_init(env, NULL, resource_name, &task->context))) {
    task->release(task);
    return NULL;
  }
  napi_async_context context = task->context;
  if (!succeeded(env, napi_create_promise(env, &task->deferred, &promise)) ||
      !succeeded(env, napi_add_async_cleanup_hook(env, on_javascript_end, task, &task->cleanup))) {
    napi_async_destroy(env, context);
    task->release(task);
    return NULL;
  }
  int error = start(task, loop);
  if (error == 0) return promise;
  napi_async_destroy(env, context);
  return throw_system_error(env, "start a thread", error);
}
