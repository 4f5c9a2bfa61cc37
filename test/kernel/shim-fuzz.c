/*
 * Fuzzing of the CNI executable's parsers (not part of it): the configuration, the agent's reply, the environment and what is printed.
 * In: arbitrary bytes; the first one says for whom. Out: nothing, or an abort by a sanitizer. Built with clang -fsanitize=fuzzer, or
 * with FUZZ_RUNS: then it makes that many inputs itself, the same ones each time.
 * Must never reach a socket or queue of the machine: the agent is the other end of a socket pair.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shim.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* In memory of exactly its size, so that one byte too many is seen. */
static void fuzz_config(const uint8_t *data, size_t size) {
  static struct network_config config;
  char why[256], *text = malloc(size ? size : 1);
  memcpy(text, data, size);
  if (json_read_config(text, size, &config, why, sizeof why)) {
    if (config.name.length >= STRING_MAX || config.socket.length >= STRING_MAX) abort();
  } else if (strlen(why) == 0) {
    abort();
  }
  free(text);
}

static void fuzz_reply(const uint8_t *data, size_t size) {
  static struct request request;
  int pair[2];
  if (size > 60000 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) return;
  if (!request_build(&request, -1, false, NULL, 0, "{}", 2)) abort();
  if (write(pair[1], data, size) != (ssize_t)size) abort();
  shutdown(pair[1], SHUT_WR);
  struct reply reply;
  struct failure failure = {.text = ""};
  if (agent_exchange(pair[0], &request, now_ms() + 1000, &reply, &failure)) {
    if (reply.length + 6 > size) abort();
    output_bytes(reply.output, reply.length, 0);
  } else if (strlen(failure.text) == 0) {
    abort();
  }
  close(pair[0]);
  close(pair[1]);
}

/* Variables are separated by 0xFF. */
static void fuzz_environment(const uint8_t *data, size_t size) {
  static const char *const names[] = {"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"};
  static struct request request;
  const uint8_t *end = data + size;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const uint8_t *stop = memchr(data, 0xFF, (size_t)(end - data));
    if (!stop) stop = end;
    char *value = strndup((const char *)data, (size_t)(stop - data));
    setenv(names[i], value, 1);
    free(value);
    data = stop < end ? stop + 1 : end;
  }
  if (request_build(&request, 3, true, NULL, 0, "", 0) && request.head_length > sizeof request.head) abort();
  output_error(getenv("CNI_COMMAND"), 4, getenv("CNI_ARGS"), getenv("CNI_PATH"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static bool prepared = false;
  if (!prepared) {
    signals_prepare();
    int null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    close(null);
    prepared = true;
  }
  if (size == 0) return 0;
  switch (data[0] % 3) {
    case 0: fuzz_config(data + 1, size - 1); break;
    case 1: fuzz_reply(data + 1, size - 1); break;
    default: fuzz_environment(data + 1, size - 1);
  }
  return 0;
}

#ifdef FUZZ_RUNS
static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t next_random(void) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

/* Good inputs, of which a few bytes are changed, left out or repeated. */
int main(void) {
  static const char *const seeds[] = {
      "0{\"cniVersion\":\"1.0.0\",\"name\":\"edge\",\"socket\":\"/run/netctl/cni.sock\",\"x\":[1,-2.5e3,null,true,{\"a\":{}}]}",
      "0{\"name\":\"\\u00e4\\ud83d\\ude00\\\"\\\\\\/\\b\\n\",\"cniVersion\":\"0.4.0\"}",
      "1\0\0\0\11\1\0{\"a\":1}",
      "1\0\0\0\2\1\1",
      "2ADD\377c1\377/run/netns/c1\377eth0\377IP=10.0.0.1;K=V\377/opt/cni/bin",
  };
  static const size_t lengths[] = {103, 61, 14, 7, 55};
  static uint8_t bytes[512];
  for (unsigned long run = 0; run < FUZZ_RUNS; run++) {
    size_t seed = run % (sizeof seeds / sizeof *seeds), size = lengths[seed];
    memcpy(bytes, seeds[seed], size);
    for (uint64_t changes = next_random() % 8; changes > 0; changes--) {
      size_t at = 1 + next_random() % (size - 1);
      uint64_t kind = next_random() % 4;
      if (kind == 0 && size > 2) memmove(bytes + at, bytes + at + 1, --size - at);
      else if (kind == 1 && size < sizeof bytes / 2) memmove(bytes + at + 1, bytes + at, size++ - at);
      else if (kind == 2) bytes[at] = "\"\\{}[],:0-.eu\xFF"[next_random() % 15];
      else bytes[at] = (uint8_t)next_random();
    }
    LLVMFuzzerTestOneInput(bytes, size);
  }
  return 0;
}
#endif
