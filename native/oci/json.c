/*
 * Looks things up in JSON that a container engine wrote, without taking it apart: a value is a span of the text.
 * In: text. Out: spans. Never: a read past the end, an allocation. What is no JSON yields empty spans.
 */
#include <string.h>

#include "oci.h"

static const char *skip_space(const char *at, const char *end) {
  while (at < end && strchr(" \t\r\n", *at) && *at) at++;
  return at;
}

static const char *skip_string(const char *at, const char *end) {
  for (at++; at < end && *at != '"'; at++)
    if (*at == '\\') at++;
  return at < end ? at + 1 : end;
}

/* Strings may hold brackets, so they are skipped whole. */
static const char *skip_value(const char *at, const char *end) {
  int depth = 0;
  do {
    at = skip_space(at, end);
    if (at == end) return end;
    if (*at == '"') {
      at = skip_string(at, end);
    } else if (*at == '{' || *at == '[') {
      depth++;
      at++;
    } else if (*at == '}' || *at == ']') {
      depth--;
      at++;
    } else if (depth > 0 && (*at == ',' || *at == ':')) {
      at++;
    } else {
      while (at < end && !strchr(" \t\r\n,:]}", *at)) at++;
    }
  } while (depth > 0);
  return at;
}

bool json_next(struct span container, const char **cursor, struct span *key, struct span *value) {
  const char *at = *cursor ? *cursor : container.at, *end = container.at + container.length;
  if (container.length < 2 || (!*cursor && *at != '{' && *at != '[')) return false;
  if (!*cursor) at++;
  at = skip_space(at, end);
  if (at < end && *at == ',') at = skip_space(at + 1, end);
  if (at >= end || *at == '}' || *at == ']') return false;
  *key = (struct span){at, 0};
  if (*container.at == '{') {
    const char *after = skip_value(at, end);
    if (*at != '"' || after - at < 2) return false;
    *key = (struct span){at + 1, (size_t)(after - at) - 2};
    at = skip_space(after, end);
    if (at >= end || *at != ':') return false;
    at = skip_space(at + 1, end);
  }
  const char *after = skip_value(at, end);
  *value = (struct span){at, (size_t)(after - at)};
  *cursor = after;
  return after > at;
}

struct span json_member(struct span object, const char *name) {
  struct span key, value, found = {object.at, 0};
  for (const char *cursor = NULL; object.length && *object.at == '{' && json_next(object, &cursor, &key, &value);)
    if (span_is(key, name)) found = value;
  return found;
}

struct span json_text(struct span value) {
  if (value.length < 2 || *value.at != '"' || memchr(value.at, '\\', value.length)) return (struct span){value.at, 0};
  return (struct span){value.at + 1, value.length - 2};
}

bool span_is(struct span span, const char *text) {
  return span.length == strlen(text) && memcmp(span.at, text, span.length) == 0;
}
