/*
 * The networks of one container, joined and left as libcni does it: the plugins of a list in order, each with the result of the one
 * before; on the way out in reverse order, with the result of the whole.
 * In: NETCTL_NETWORKS, `/etc/cni/net.d`. Out: calls of plugins; the results, kept in the bundle. Never: a shell; an ADD that failed and
 * left something.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "oci.h"

#ifndef CONFIGURATIONS
#define CONFIGURATIONS "/etc/cni/net.d"
#endif
#ifndef PLUGINS
#define PLUGINS "/opt/cni/bin:/usr/lib/cni"
#endif
#define NETWORKS_MAX 16
#define PLUGINS_MAX 16

struct call {
  const char *command, *id, *netns, *interface, *args;
};

static const char *variable = "NETCTL_NETWORKS=";

struct span networks_asked(struct span config) {
  struct span key, value, found = {config.at, 0};
  struct span env = json_member(json_member(config, "process"), "env");
  for (const char *cursor = NULL; env.length && json_next(env, &cursor, &key, &value);) {
    struct span text = json_text(value);
    size_t prefix = strlen(variable);
    bool named = value.length > prefix && memcmp(value.at + 1, variable, prefix) == 0;
    if (named && text.length == 0) fail("NETCTL_NETWORKS: expected names of networks, without quotes or backslashes");
    if (named) found = (struct span){text.at + prefix, text.length - prefix};
  }
  struct span note = json_text(json_member(json_member(config, "annotations"), "netctl.networks"));
  return found.length ? found : note;
}

static bool ends_with(const char *text, const char *end) {
  size_t length = strlen(text);
  return length > strlen(end) && strcmp(text + length - strlen(end), end) == 0;
}

static int is_list(const struct dirent *entry) { return ends_with(entry->d_name, ".conflist"); }

/* The first list of that name, in the order of the files' names. */
static struct span find_list(const char *name) {
  struct dirent **entries;
  int count = scandir(CONFIGURATIONS, &entries, is_list, alphasort);
  for (int i = 0; i < count; i++) {
    struct span list = read_file(text_of("%s/%s", CONFIGURATIONS, entries[i]->d_name));
    if (span_is(json_text(json_member(list, "name")), name)) return list;
  }
  fail("no network %s: no file *.conflist in " CONFIGURATIONS " has that name", name);
}

static char *find_plugin(struct span type) {
  if (type.length == 0 || memchr(type.at, '/', type.length)) fail("a plugin in the list has no type");
  for (const char *at = PLUGINS; *at; at += strcspn(at, ":"), at += *at == ':') {
    char *path = text_of("%.*s/%.*s", (int)strcspn(at, ":"), at, (int)type.length, type.at);
    if (access(path, X_OK) == 0) return path;
  }
  fail("there is no plugin %.*s in " PLUGINS, (int)type.length, type.at);
}

/* What it printed; false when it failed. */
static bool run_plugin(const char *path, const struct call *call, const char *input, struct span *output) {
  int in = memfd_create("input", MFD_CLOEXEC), out = memfd_create("output", MFD_CLOEXEC);
  size_t length = strlen(input);
  if (in < 0 || out < 0 || write(in, input, length) != (ssize_t)length) fail("cannot hold the configuration in memory");
  lseek(in, 0, SEEK_SET);
  pid_t child = fork();
  if (child < 0) fail("cannot start %s", path);
  if (child == 0) {
    char *environment[] = {text_of("CNI_COMMAND=%s", call->command), text_of("CNI_CONTAINERID=%s", call->id),
                           text_of("CNI_NETNS=%s", call->netns),     text_of("CNI_IFNAME=%s", call->interface),
                           text_of("CNI_ARGS=%s", call->args),       "CNI_PATH=" PLUGINS,
                           "PATH=/usr/sbin:/usr/bin:/sbin:/bin",     NULL};
    char *arguments[] = {(char *)path, NULL};
    dup2(in, 0);
    dup2(out, 1);
    execve(path, arguments, environment);
    _exit(127);
  }
  int status;
  if (waitpid(child, &status, 0) != child) fail("lost %s", path);
  lseek(out, 0, SEEK_SET);
  *output = read_descriptor(out, path);
  close(in);
  close(out);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static char *configuration(struct span list, struct span plugin, struct span previous) {
  struct span version = json_text(json_member(list, "cniVersion")), name = json_text(json_member(list, "name"));
  bool empty = plugin.length < 3;
  return text_of("{\"cniVersion\":\"%.*s\",\"name\":\"%.*s\"%s%.*s%s%.*s", (int)version.length, version.at,
                 (int)name.length, name.at, previous.length ? ",\"prevResult\":" : "", (int)previous.length, previous.at,
                 empty ? "" : ",", (int)plugin.length - 1, plugin.at + 1);
}

static size_t plugins_of(struct span list, struct span plugins[PLUGINS_MAX]) {
  struct span key, all = json_member(list, "plugins");
  size_t count = 0;
  for (const char *cursor = NULL; all.length && count < PLUGINS_MAX && json_next(all, &cursor, &key, &plugins[count]);)
    count++;
  if (count == 0) fail("a list in " CONFIGURATIONS " has no plugins");
  return count;
}

static bool add(struct span list, const struct call *call, struct span *result) {
  struct span plugins[PLUGINS_MAX];
  size_t count = plugins_of(list, plugins);
  for (size_t i = 0; i < count; i++) {
    char *path = find_plugin(json_text(json_member(plugins[i], "type")));
    if (run_plugin(path, call, configuration(list, plugins[i], *result), result)) continue;
    fprintf(stderr, "netctl-oci: %s: %.*s\n", path, (int)result->length, result->at);
    return false;
  }
  return true;
}

static void delete(struct span list, const struct call *call, struct span result) {
  struct span plugins[PLUGINS_MAX], output;
  for (size_t i = plugins_of(list, plugins); i-- > 0;) {
    char *path = find_plugin(json_text(json_member(plugins[i], "type")));
    if (!run_plugin(path, call, configuration(list, plugins[i], result), &output))
      fprintf(stderr, "netctl-oci: %s: %.*s\n", path, (int)output.length, output.at);
  }
}

/* `edge;IP=10.65.0.9;NETCTL_PROFILE=db back`: words; in each a network, then its CNI_ARGS. */
static size_t words_of(struct span asked, char *names[NETWORKS_MAX], char *args[NETWORKS_MAX]) {
  size_t count = 0;
  char *text = text_of("%.*s", (int)asked.length, asked.at), *rest = NULL;
  for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
    if (count == NETWORKS_MAX) fail("NETCTL_NETWORKS: more than %d networks", NETWORKS_MAX);
    size_t length = strcspn(word, ";");
    names[count] = text_of("%.*s", (int)length, word);
    args[count++] = text_of("IgnoreUnknown=1%s", word + length);
  }
  return count;
}

static char *result_file(const char *bundle, size_t i) { return text_of("%s/netctl-result-%zu.json", bundle, i); }

static void leave(size_t i, const char *name, const char *id, const char *bundle, const char *args) {
  struct call call = {"DEL", id, "", text_of("eth%zu", i), args};
  struct span result = {"", 0};
  char *file = result_file(bundle, i);
  if (access(file, R_OK) == 0) result = read_file(file);
  delete (find_list(name), &call, result);
  unlink(file);
}

int networks_add(struct span asked, const char *id, const char *bundle, const char *netns) {
  char *names[NETWORKS_MAX], *args[NETWORKS_MAX];
  size_t count = words_of(asked, names, args);
  /* A name that is not there is found before anything is done. */
  for (size_t i = 0; i < count; i++) find_list(names[i]);
  for (size_t i = 0; i < count; i++) {
    struct call call = {"ADD", id, netns, text_of("eth%zu", i), args[i]};
    struct span result = {"", 0};
    if (!add(find_list(names[i]), &call, &result)) {
      for (size_t made = i + 1; made-- > 0;) leave(made, names[made], id, bundle, args[made]);
      return 1;
    }
    int file = open(result_file(bundle, i), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0 || write(file, result.at, result.length) != (ssize_t)result.length) fail("cannot keep the result in %s", bundle);
    close(file);
  }
  return 0;
}

void networks_delete(struct span asked, const char *id, const char *bundle) {
  char *names[NETWORKS_MAX], *args[NETWORKS_MAX];
  for (size_t i = words_of(asked, names, args); i-- > 0;) leave(i, names[i], id, bundle, args[i]);
}
