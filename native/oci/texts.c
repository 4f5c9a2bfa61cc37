/*
 * Texts of a short life: read, put together, and the last one that a failure leaves.
 *
 * In: files, descriptors, formats. Out: memory that lives as long as this process, which is short. Never: a return after a failure.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "oci.h"

/* NULL for a hook, whose standard error the engine reads. */
static const char *log_path;

void log_failures_to(const char *path) { log_path = path; }

_Noreturn void fail(const char *format, ...) {
  char reason[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reason, sizeof reason, format, arguments);
  va_end(arguments);
  fprintf(stderr, "netctl-oci: %s\n", reason);
  FILE *log = log_path ? fopen(log_path, "a") : NULL;
  if (log) {
    for (char *at = reason; *at; at++)
      if (*at == '"' || *at == '\\' || (unsigned char)*at < ' ') *at = '\'';
    fprintf(log, "{\"level\":\"error\",\"msg\":\"netctl-oci: %s\"}\n", reason);
    fclose(log);
  }
  exit(1);
}

char *text_of(const char *format, ...) {
  char *text;
  va_list arguments;
  va_start(arguments, format);
  int length = vasprintf(&text, format, arguments);
  va_end(arguments);
  if (length < 0) fail("out of memory");
  return text;
}

struct span read_descriptor(int fd, const char *name) {
  size_t size = 1 << 16, length = 0;
  char *text = NULL;
  for (;;) {
    text = realloc(text, size + 1);
    if (!text) fail("out of memory");
    ssize_t got = read(fd, text + length, size - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("cannot read %s: %s", name, strerror(errno));
    if (got == 0) break;
    length += (size_t)got;
    if (length > FILE_MAX) fail("%s has more than %u bytes", name, FILE_MAX);
    if (length == size) size *= 2;
  }
  text[length] = 0;
  while (length > 0 && strchr(" \t\r\n", text[length - 1])) length--;
  return (struct span){text, length};
}

struct span read_file(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("cannot open %s: %s", path, strerror(errno));
  struct span text = read_descriptor(fd, path);
  close(fd);
  return text;
}
