/*
 * Delete queue: a DEL that the agent cannot take now is kept as a file, and the agent does it later.
 * In: the socket's path, what identifies the attachment, the request frame. Out: one durable file per attachment.
 * A repeated DEL replaces its file. A reader must never see a part of a frame (temp file, fsync, rename, fsync).
 * The shared lock keeps a starting agent, which holds it exclusively, from missing a file written in between.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shim.h"

#define QUEUE_MAX 1024 /* files; above it the runtime has to try again */
#define LOCK_RETRY_MS 20
#define NAME_SIZE sizeof("0123456789abcdef0123456789abcdef.delete")

static bool make_default(struct failure *failure);
static bool has_room(int directory_fd, const char *file, struct failure *failure);
static bool write_all(int fd, const void *bytes, size_t length);
static uint64_t fnv1a(uint64_t hash, const char *text);
static uint64_t key_hash(uint64_t seed, const char *name, const char *container_id, const char *ifname);

/* Finds the queue that belongs to a socket; only the default socket's queue is made when missing. */
bool queue_find(const char *socket_path, char *directory, size_t size, struct failure *failure) {
  char run[SOCKET_PATH_MAX];
  struct stat st;
  path_directory(socket_path, run);
  snprintf(directory, size, "%s/delqueue", run);
  if (stat(directory, &st) < 0) {
    if (strcmp(socket_path, DEFAULT_SOCKET) != 0)
      return failed(failure, UNREACHABLE, "no delete queue: %s: %s", directory, strerror(errno));
    snprintf(directory, size, "%s", DEFAULT_QUEUE);
    if (!make_default(failure)) return false;
  }
  return directory_is_safe(directory, true, failure);
}

static bool make_default(struct failure *failure) {
  char path[] = DEFAULT_QUEUE;
  for (char *slash = path; slash; ) {
    slash = strchr(slash + 1, '/');
    if (slash) *slash = '\0';
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
      return failed(failure, UNREACHABLE, "cannot make %s: %s", path, strerror(errno));
    if (slash) *slash = '/';
  }
  return true;
}

/* Takes the shared lock, or gives up at `until`. Returns its descriptor, -1 with `failure` filled. */
int queue_lock(const char *directory, int64_t until, struct failure *failure) {
  char path[SOCKET_PATH_MAX + 32];
  snprintf(path, sizeof path, "%s/lock", directory);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return failed(failure, UNREACHABLE, "%s: %s", path, strerror(errno)), -1;
  while (flock(fd, LOCK_SH | LOCK_NB) < 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) failed(failure, UNREACHABLE, "lock %s: %s", path, strerror(errno));
    else if (now_ms() >= until) failed(failure, UNREACHABLE, "%s is held by the agent", path);
    else {
      /* Not wait_for(): a DEL is queued even after SIGTERM. */
      nanosleep(&(struct timespec){.tv_nsec = LOCK_RETRY_MS * 1000000}, NULL);
      continue;
    }
    close(fd);
    return -1;
  }
  return fd;
}

/* Writes the frame durably. The caller holds the lock. */
bool queue_write(const char *directory, const char *name, const char *container_id, const char *ifname,
                 const struct request *request, struct failure *failure) {
  char file[NAME_SIZE], temporary[NAME_SIZE + 16];
  snprintf(file, sizeof file, "%016" PRIx64 "%016" PRIx64 ".delete",
           key_hash(UINT64_C(0xcbf29ce484222325), name, container_id, ifname),
           key_hash(UINT64_C(0x84222325cbf29ce4), name, container_id, ifname));
  snprintf(temporary, sizeof temporary, ".%s.%d", file, (int)getpid());

  int directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory_fd < 0) return failed(failure, UNREACHABLE, "%s: %s", directory, strerror(errno));
  bool done = has_room(directory_fd, file, failure);
  if (done) {
    int fd = openat(directory_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    done = fd >= 0 && write_all(fd, request->head, request->head_length) &&
           write_all(fd, request->input, request->input_length) && fsync(fd) == 0;
    int saved = errno;
    if (fd >= 0 && close(fd) < 0 && done) done = false, saved = errno;
    errno = saved;
    done = done && renameat(directory_fd, temporary, directory_fd, file) == 0 && fsync(directory_fd) == 0;
    if (!done) {
      failed(failure, UNREACHABLE, "cannot write %s/%s: %s", directory, file, strerror(errno));
      unlinkat(directory_fd, temporary, 0);
    }
  }
  close(directory_fd);
  return done;
}

/* False when more than QUEUE_MAX files wait and `file` would be one more. */
static bool has_room(int directory_fd, const char *file, struct failure *failure) {
  int fd = dup(directory_fd);
  DIR *listing = fd < 0 ? NULL : fdopendir(fd);
  if (!listing) {
    failed(failure, UNREACHABLE, "cannot list the delete queue: %s", strerror(errno));
    if (fd >= 0) close(fd);
    return false;
  }
  int count = 0;
  bool replaces = false;
  for (struct dirent *entry; (entry = readdir(listing));) {
    const char *suffix = strrchr(entry->d_name, '.');
    if (entry->d_name[0] == '.' || !suffix || strcmp(suffix, ".delete") != 0) continue;
    count++;
    if (strcmp(entry->d_name, file) == 0) replaces = true;
  }
  closedir(listing);
  if (count > QUEUE_MAX && !replaces)
    return failed(failure, UNREACHABLE, "the delete queue is full: %d files wait for the agent, at most %d may", count,
                  QUEUE_MAX);
  return true;
}

static bool write_all(int fd, const void *bytes, size_t length) {
  for (const char *at = bytes; length > 0;) {
    ssize_t n = write(fd, at, length);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    at += n;
    length -= (size_t)n;
  }
  return true;
}

/* FNV-1a, 64 bits, over the text and its NUL. */
static uint64_t fnv1a(uint64_t hash, const char *text) {
  const unsigned char *at = (const unsigned char *)text;
  do hash = (hash ^ *at) * UINT64_C(0x100000001b3);
  while (*at++);
  return hash;
}

/* Hash of name NUL containerid NUL ifname (no NUL at the end). */
static uint64_t key_hash(uint64_t seed, const char *name, const char *container_id, const char *ifname) {
  uint64_t hash = fnv1a(fnv1a(seed, name), container_id);
  for (const unsigned char *at = (const unsigned char *)ifname; *at; at++)
    hash = (hash ^ *at) * UINT64_C(0x100000001b3);
  return hash;
}
