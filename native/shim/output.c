/*
 * Standard output of the CNI executable: the agent's bytes as they came, an error, or the list of versions.
 * In: text that may hold any byte. Out: one line of valid JSON (control characters escaped, broken UTF-8 as U+FFFD).
 * Nothing else may ever be written to standard output: runtimes parse all of it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

/* Room for three bounded strings of which every byte becomes \uXXXX. */
static char line[(STRING_MAX + 10240 + 2048) * 6];
static size_t used;

static void put(const char *text);
static void put_string(const char *text);

/* Writes everything; a reader that went away turns the status into 1. */
int output_bytes(const void *bytes, size_t length, int exit_status) {
  const char *at = bytes;
  while (length > 0) {
    ssize_t n = write(STDOUT_FILENO, at, length);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return 1;
    at += n;
    length -= (size_t)n;
  }
  return exit_status;
}

/* Prints a CNI error (specification 1.1.0, "Error"); empty details are left out. */
int output_error(const char *cni_version, int code, const char *msg, const char *details) {
  char number[16];
  snprintf(number, sizeof number, "%d", code);
  put("{\"cniVersion\":");
  put_string(cni_version);
  put(",\"code\":");
  put(number);
  put(",\"msg\":");
  put_string(msg);
  if (*details) {
    put(",\"details\":");
    put_string(details);
  }
  put("}\n");
  output_bytes(line, used, 1);
  return 1;
}

/* Prints the answer to VERSION. */
int output_versions(const char *cni_version, const char *const *versions, size_t count) {
  put("{\"cniVersion\":");
  put_string(cni_version);
  put(",\"supportedVersions\":[");
  for (size_t i = 0; i < count; i++) {
    if (i > 0) put(",");
    put_string(versions[i]);
  }
  put("]}\n");
  return output_bytes(line, used, 0);
}

/* Length of the UTF-8 sequence at `s` (NUL-terminated); 0 when it is overlong, a surrogate, above U+10FFFF or cut. */
static size_t utf8_length(const unsigned char *s) {
  size_t n = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;
  for (size_t i = 1; i < n; i++)
    if ((s[i] & 0xC0) != 0x80) return 0;
  if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F)) return 0;
  if ((s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F)) return 0;
  return n;
}

static void put_string(const char *text) {
  put("\"");
  for (const unsigned char *s = (const unsigned char *)text; *s;) {
    char piece[8];
    size_t n = utf8_length(s);
    if (n == 0) snprintf(piece, sizeof piece, "\\ufffd");
    else if (*s == '"' || *s == '\\') snprintf(piece, sizeof piece, "\\%c", *s);
    else if (*s < 0x20 || *s == 0x7F) snprintf(piece, sizeof piece, "\\u%04x", (unsigned)*s);
    else snprintf(piece, sizeof piece, "%.*s", (int)n, (const char *)s);
    put(piece);
    s += n == 0 ? 1 : n;
  }
  put("\"");
}

static void put(const char *text) {
  size_t n = strlen(text);
  if (n > sizeof line - used) n = sizeof line - used;
  memcpy(line + used, text, n);
  used += n;
}
