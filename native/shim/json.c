/*
 * JSON scanner: checks a whole text (RFC 8259) and keeps three top-level strings: cniVersion, name and socket.
 * In: the bytes of standard input. Out: the strings unescaped as UTF-8, or one sentence saying where the text is wrong.
 * As in Go's encoding/json: keys match without regard to case, the last of repeated keys wins, null leaves a key unset.
 * No recursion, no allocation; nesting deeper than DEPTH_MAX is refused. Never reads past `end`.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "shim.h"

#define DEPTH_MAX 64
#define KEY_MAX 16

struct scanner {
  const unsigned char *start, *at, *end;
  char open[DEPTH_MAX]; /* '{' or '[' of every container we are in */
  int depth;
  struct network_config *config;
  struct config_string *target; /* where the value that comes next belongs, or NULL */
  char *why;
  size_t why_size;
};

enum due { VALUE, VALUE_OR_END, KEY, KEY_OR_END, COMMA_OR_END, NOTHING };

static bool scan_value(struct scanner *s, enum due *due);
static bool scan_key(struct scanner *s);
static bool scan_string(struct scanner *s, char *out, size_t size, size_t *length);
static bool scan_number(struct scanner *s);
static bool scan_word(struct scanner *s, const char *word);
static bool scan_close(struct scanner *s, enum due *due);
static void skip_space(struct scanner *s);
static int peek(const struct scanner *s);
static bool invalid(struct scanner *s);

bool json_read_config(const char *text, size_t length, struct network_config *config, char *why, size_t why_size) {
  struct scanner s = {.start = (const unsigned char *)text, .config = config, .why = why, .why_size = why_size};
  s.at = s.start;
  s.end = s.start + length;
  skip_space(&s);
  int first = peek(&s);

  for (enum due due = VALUE; due != NOTHING;) {
    skip_space(&s);
    int c = peek(&s);
    if ((due == KEY_OR_END && c == '}') || (due == VALUE_OR_END && c == ']')) {
      if (!scan_close(&s, &due)) return false;
    } else if (due == KEY || due == KEY_OR_END) {
      if (!scan_key(&s)) return false;
      due = VALUE;
    } else if (due == VALUE || due == VALUE_OR_END) {
      if (!scan_value(&s, &due)) return false;
    } else if (c == ',') {
      s.at++;
      due = s.open[s.depth - 1] == '{' ? KEY : VALUE;
    } else if (!scan_close(&s, &due)) {
      return false;
    }
  }
  skip_space(&s);
  if (s.at != s.end) return invalid(&s);
  if (first != '{' && first != 'n') {
    snprintf(why, why_size, "the configuration must be a JSON object");
    return false;
  }
  return true;
}

/* Reads a scalar or opens a container, and sets what is due next. */
static bool scan_value(struct scanner *s, enum due *due) {
  int c = peek(s);
  struct config_string *target = s->target;
  s->target = NULL;
  if (target && c != '"' && c != 'n') target->state = STRING_WRONG_TYPE;
  *due = s->depth > 0 ? COMMA_OR_END : NOTHING;
  switch (c) {
    case '{':
    case '[':
      if (s->depth == DEPTH_MAX) {
        snprintf(s->why, s->why_size, "nested deeper than %d levels", DEPTH_MAX);
        return false;
      }
      s->open[s->depth++] = (char)c;
      s->at++;
      *due = c == '{' ? KEY_OR_END : VALUE_OR_END;
      return true;
    case '"': {
      /* Like Go, remember a wrong type even if a later repetition of the key is right. */
      if (!target || target->state == STRING_WRONG_TYPE) return scan_string(s, NULL, 0, NULL);
      if (!scan_string(s, target->text, STRING_MAX, &target->length)) return false;
      target->state = target->length < STRING_MAX ? STRING_GIVEN : STRING_TOO_LONG;
      return true;
    }
    case 't':
      return scan_word(s, "true");
    case 'f':
      return scan_word(s, "false");
    case 'n':
      return scan_word(s, "null");
    default:
      return scan_number(s);
  }
}

/* Reads a key and its colon; a key of the outermost object may choose the target of the value. */
static bool scan_key(struct scanner *s) {
  char key[KEY_MAX];
  size_t length;
  if (peek(s) != '"') return invalid(s);
  if (!scan_string(s, key, sizeof key, &length)) return false;
  skip_space(s);
  if (peek(s) != ':') return invalid(s);
  s->at++;
  if (s->depth != 1 || length >= sizeof key || strlen(key) != length) return true;
  if (strcasecmp(key, "cniVersion") == 0) s->target = &s->config->cni_version;
  if (strcasecmp(key, "name") == 0) s->target = &s->config->name;
  if (strcasecmp(key, "socket") == 0) s->target = &s->config->socket;
  return true;
}

/* The four hex digits of a \u escape, or -1. */
static long scan_hex4(struct scanner *s) {
  long code = 0;
  for (int i = 0; i < 4; i++, s->at++) {
    int c = peek(s);
    if (c >= '0' && c <= '9') code = code * 16 + (c - '0');
    else if (c >= 'a' && c <= 'f') code = code * 16 + (c - 'a' + 10);
    else if (c >= 'A' && c <= 'F') code = code * 16 + (c - 'A' + 10);
    else return -1;
  }
  return code;
}

/* The code point of the escape whose backslash was just read, or -1. A lone surrogate becomes U+FFFD, as in Go. */
static long scan_escape(struct scanner *s) {
  static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
  int c = peek(s);
  if (c <= 0) return -1;
  if (c != 'u') {
    const char *found = strchr(letters, c);
    if (!found) return -1;
    s->at++;
    return meanings[found - letters];
  }
  s->at++;
  long high = scan_hex4(s);
  if (high < 0xD800 || high > 0xDFFF) return high;
  if (high < 0xDC00 && s->end - s->at >= 2 && s->at[0] == '\\' && s->at[1] == 'u') {
    const unsigned char *second = s->at;
    s->at += 2;
    long low = scan_hex4(s);
    if (low < 0) return -1;
    if (low >= 0xDC00 && low <= 0xDFFF) return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    s->at = second; /* not the other half: an escape of its own */
  }
  return 0xFFFD;
}

static int encode_utf8(long code, char out[4]) {
  if (code < 0x80) return out[0] = (char)code, 1;
  if (code < 0x800) return out[0] = (char)(0xC0 | code >> 6), out[1] = (char)(0x80 | (code & 0x3F)), 2;
  int n = code < 0x10000 ? 3 : 4;
  out[0] = (char)(n == 3 ? 0xE0 | code >> 12 : 0xF0 | code >> 18);
  if (n == 4) out[1] = (char)(0x80 | (code >> 12 & 0x3F));
  out[n - 2] = (char)(0x80 | (code >> 6 & 0x3F));
  out[n - 1] = (char)(0x80 | (code & 0x3F));
  return n;
}

/* Reads a string. With `out`, stores what fits and a NUL; *length >= size then means that it did not fit. */
static bool scan_string(struct scanner *s, char *out, size_t size, size_t *length) {
  size_t n = 0;
  for (s->at++; peek(s) != '"'; ) {
    int c = peek(s);
    if (c < 0x20) return invalid(s);
    s->at++;
    char bytes[4] = {(char)c};
    int count = 1;
    if (c == '\\') {
      long code = scan_escape(s);
      if (code < 0) return invalid(s);
      count = encode_utf8(code, bytes);
    }
    for (int i = 0; i < count; i++, n++)
      if (out && n < size - 1) out[n] = bytes[i];
  }
  s->at++;
  if (out) {
    out[n < size ? n : size - 1] = '\0';
    *length = n;
  }
  return true;
}

static bool scan_digits(struct scanner *s) {
  if (peek(s) < '0' || peek(s) > '9') return invalid(s);
  while (peek(s) >= '0' && peek(s) <= '9') s->at++;
  return true;
}

static bool scan_number(struct scanner *s) {
  if (peek(s) == '-') s->at++;
  if (peek(s) == '0') s->at++;
  else if (!scan_digits(s)) return false;
  if (peek(s) == '.') {
    s->at++;
    if (!scan_digits(s)) return false;
  }
  if (peek(s) != 'e' && peek(s) != 'E') return true;
  s->at++;
  if (peek(s) == '+' || peek(s) == '-') s->at++;
  return scan_digits(s);
}

static bool scan_word(struct scanner *s, const char *word) {
  for (; *word; word++, s->at++)
    if (peek(s) != *word) return invalid(s);
  return true;
}

/* Closes the innermost container. */
static bool scan_close(struct scanner *s, enum due *due) {
  if (peek(s) != (s->open[s->depth - 1] == '{' ? '}' : ']')) return invalid(s);
  s->at++;
  s->depth--;
  *due = s->depth > 0 ? COMMA_OR_END : NOTHING;
  return true;
}

static void skip_space(struct scanner *s) {
  while (peek(s) == ' ' || peek(s) == '\t' || peek(s) == '\n' || peek(s) == '\r') s->at++;
}

/* The next byte, or -1 at the end of the text. */
static int peek(const struct scanner *s) { return s->at < s->end ? *s->at : -1; }

static bool invalid(struct scanner *s) {
  int c = peek(s);
  if (c < 0) snprintf(s->why, s->why_size, "unexpected end of JSON input");
  else if (c > ' ' && c < 0x7F)
    snprintf(s->why, s->why_size, "invalid character '%c' at byte %td", c, s->at - s->start);
  else snprintf(s->why, s->why_size, "invalid character 0x%02x at byte %td", (unsigned)c, s->at - s->start);
  return false;
}
