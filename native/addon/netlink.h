/*
 * A netlink or packet socket as the files that open it, send on it and receive from it see it.
 *
 * Life: `users` counts the open socket, its poll and each background send or receive; the last one closes the descriptor. The memory goes
 * when, besides, JavaScript has no object for it any more. Never: a descriptor closed while a thread or the loop still uses it.
 */
#ifndef NETCTL_NETLINK_H
#define NETCTL_NETLINK_H

#include "addon.h"

#include <uv.h>

struct netlink_socket {
  int fd;
  /* What other processes may send to a netlink socket is not heard; a packet socket hears what is on the wire. */
  bool kernel_only;
  bool slow_to_close;
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

/* The socket that the value is, open or closed, or NULL with an exception pending. */
struct netlink_socket *get_any_socket(napi_env env, napi_value value);
/* The open socket that the value is, or NULL with an exception pending. */
struct netlink_socket *get_socket(napi_env env, napi_value value);
/* A JavaScript object for the descriptor, or NULL with an exception pending and the descriptor closed. */
napi_value wrap_socket(napi_env env, int fd, bool kernel_only);
/* One user less. */
void drop_user(struct netlink_socket *sock);
/* For everybody: stops the poll, closes the descriptor as soon as nobody uses it. */
void close_socket(struct netlink_socket *sock);

napi_value send_now(napi_env env, napi_callback_info info);
napi_value send_in_background(napi_env env, napi_callback_info info);
napi_value begin_send(napi_env env, napi_callback_info info);
napi_value finish_send(napi_env env, napi_callback_info info);
napi_value run_chains(napi_env env, napi_callback_info info);
napi_value receive_now(napi_env env, napi_callback_info info);
napi_value receive_in_background(napi_env env, napi_callback_info info);
napi_value on_readable(napi_env env, napi_callback_info info);
napi_value ref_socket(napi_env env, napi_callback_info info);
napi_value unref_socket(napi_env env, napi_callback_info info);

#endif
