/*
 * Encoder of the request frame of PROTOCOL.md.
 * In: the descriptor of the opened netns, the CNI_* environment, entries of our own, standard input.
 * Out: a struct request whose head and input, one after the other, are the frame. Integers are big endian.
 * Only the named variables are sent: the rest of the environment is none of the agent's business.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

static unsigned char *put_u32(unsigned char *at, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) *at++ = (unsigned char)(value >> shift);
  return at;
}

static bool put_entry(struct request *request, const char *key, const char *value) {
  size_t key_length = strlen(key), value_length = strlen(value) + 1;
  if (key_length + value_length > sizeof request->head - request->head_length) return false;
  memcpy(request->head + request->head_length, key, key_length);
  memcpy(request->head + request->head_length + key_length, value, value_length);
  request->head_length += key_length + value_length;
  return true;
}

/* Fills `request`; `more` are complete KEY=VALUE entries. False when the environment exceeds ENV_BLOCK_MAX bytes. */
bool request_build(struct request *request, int netns_fd, bool ipam, const char *const *more, size_t more_count,
                   const char *input, size_t input_length) {
  static const char *const names[] = {"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS",
                                      "CNI_IFNAME",  "CNI_ARGS",        "CNI_PATH"};
  static const char *const keys[] = {"CNI_COMMAND=", "CNI_CONTAINERID=", "CNI_NETNS=",
                                     "CNI_IFNAME=",  "CNI_ARGS=",        "CNI_PATH="};
  const size_t fixed = sizeof request->head - ENV_BLOCK_MAX;
  request->head_length = fixed;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *value = getenv(names[i]);
    if (value && !put_entry(request, keys[i], value)) return false;
  }
  if (ipam && !put_entry(request, "NETCTL_ROLE=", "ipam")) return false;
  for (size_t i = 0; i < more_count; i++)
    if (!put_entry(request, "", more[i])) return false;
  request->input = input;
  request->input_length = input_length;

  unsigned char *at = put_u32(request->head, (uint32_t)(request->head_length - 4 + input_length));
  *at++ = PROTOCOL_VERSION;
  at = put_u32(at, (uint32_t)getpid());
  at = put_u32(at, (uint32_t)netns_fd);
  put_u32(at, (uint32_t)(request->head_length - fixed));
  return true;
}
