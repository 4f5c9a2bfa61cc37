/*
 * netctl-oci: an OCI runtime for Docker that joins containers to CNI networks, and is runc otherwise.
 *
 * In: the command line of runc. A container whose environment has NETCTL_NETWORKS (or whose annotation netctl.networks says so) gets two
 * hooks into its config.json on `create`: one that calls CNI ADD when its network namespace is there and nothing of it runs yet, one that
 * calls CNI DEL when it is gone. Out: runc itself, by exec; as a hook, an exit code. Never: a config.json half written, a container changed
 * that asked for nothing, a container that starts without a network that it asked for.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "oci.h"

#ifndef RUNTIME
#define RUNTIME "runc"
#endif

/* The text with something put in after `at`. */
static struct span insert(struct span text, const char *at, const char *addition) {
  size_t before = (size_t)(at - text.at);
  char *joined = text_of("%.*s%s%.*s", (int)before, text.at, addition, (int)(text.length - before), at);
  return (struct span){joined, strlen(joined)};
}

/* Right behind the bracket that opens it. */
static struct span insert_first(struct span text, struct span container, const char *addition) {
  struct span key, value;
  const char *cursor = NULL;
  bool more = json_next(container, &cursor, &key, &value);
  return insert(text, container.at + 1, text_of("%s%s", addition, more ? "," : ""));
}

static struct span add_hook(struct span config, const char *moment, const char *self, const char *verb) {
  char *hook = text_of("{\"path\":\"%s\",\"args\":[\"netctl-oci\",\"hook\",\"%s\"]}", self, verb);
  struct span hooks = json_member(config, "hooks");
  if (hooks.length == 0) return insert_first(config, config, text_of("\"hooks\":{\"%s\":[%s]}", moment, hook));
  if (*hooks.at != '{') fail("config.json: hooks is no object");
  struct span list = json_member(hooks, moment);
  if (list.length == 0 || *list.at != '[') return insert_first(config, hooks, text_of("\"%s\":[%s]", moment, hook));
  return insert_first(config, list, hook);
}

static void write_config(const char *path, struct span config) {
  char *temporary = text_of("%s.netctl", path);
  int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0 || write(fd, config.at, config.length) != (ssize_t)config.length || close(fd) != 0 ||
      rename(temporary, path) != 0)
    fail("cannot write %s: %s", path, strerror(errno));
}

static void prepare(const char *bundle) {
  char *path = text_of("%s/config.json", bundle), self[4096];
  struct span config = read_file(path);
  if (config.length == 0 || *config.at != '{') fail("%s is no JSON object", path);
  if (networks_asked(config).length == 0) return;
  ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  if (length < 0) fail("cannot tell my own path");
  self[length] = 0;
  if (strpbrk(self, "\"\\")) fail("my own path has quotes in it");
  config = add_hook(config, "createRuntime", self, "add");
  write_config(path, add_hook(config, "poststop", self, "delete"));
}

/* The container's state is on standard input (OCI runtime specification, "State"). */
static int hook(const char *verb) {
  struct span state = read_descriptor(0, "the state of the container");
  struct span id = json_text(json_member(state, "id")), bundle = json_text(json_member(state, "bundle"));
  struct span pid = json_member(state, "pid");
  if (id.length == 0 || bundle.length == 0) fail("the state of the container has no id or bundle");
  char *directory = text_of("%.*s", (int)bundle.length, bundle.at), *name = text_of("%.*s", (int)id.length, id.at);
  struct span asked = networks_asked(read_file(text_of("%s/config.json", directory)));
  if (strcmp(verb, "add") == 0)
    return networks_add(asked, name, directory, text_of("/proc/%.*s/ns/net", (int)pid.length, pid.at));
  networks_delete(asked, name, directory);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "hook") == 0) return hook(argv[2]);
  const char *bundle = ".";
  bool creates = false;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--log") == 0 && i + 1 < argc) log_failures_to(argv[++i]);
    if (strcmp(argv[i], "create") == 0 || strcmp(argv[i], "run") == 0) creates = true;
    if ((strcmp(argv[i], "--bundle") == 0 || strcmp(argv[i], "-b") == 0) && i + 1 < argc) bundle = argv[++i];
    else if (strncmp(argv[i], "--bundle=", 9) == 0) bundle = argv[i] + 9;
  }
  if (creates) prepare(bundle);
  argv[0] = RUNTIME;
  execvp(RUNTIME, argv);
  fail("cannot start " RUNTIME ": %s", strerror(errno));
}
