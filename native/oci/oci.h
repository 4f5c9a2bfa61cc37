/*
 * What the parts of netctl-oci share.
 * In: the bundle of a container, its state, network configurations. Out: see netctl-oci.c and network.c.
 */
#ifndef NETCTL_OCI_H
#define NETCTL_OCI_H

#include <stdbool.h>
#include <stddef.h>

#define FILE_MAX (8u << 20) /* bytes of a config.json, a network configuration, a plugin's answer */

/* A piece of a text that somebody else keeps. */
struct span {
  const char *at;
  size_t length;
};

/* json.c: one member (or element, with an empty key) after the other; *cursor is NULL at first. */
bool json_next(struct span container, const char **cursor, struct span *key, struct span *value);
/* The last member of that name; empty where there is none. */
struct span json_member(struct span object, const char *name);
/* What is between the quotes; empty for what is no string, or has escapes in it. */
struct span json_text(struct span value);
bool span_is(struct span span, const char *text);

/* texts.c: they end the process when they fail. */
/* Failures are written there, too, in runc's form: where the engine looks for the reason. */
void log_failures_to(const char *path);
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
struct span read_file(const char *path);
struct span read_descriptor(int fd, const char *name);
char *text_of(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* network.c: what the container asks for (`NETCTL_NETWORKS`), empty if nothing. */
struct span networks_asked(struct span config);
/* 0, or 1 with the reason on standard error; then nothing is left of the networks. */
int networks_add(struct span asked, const char *id, const char *bundle, const char *netns);
void networks_delete(struct span asked, const char *id, const char *bundle);

#endif
