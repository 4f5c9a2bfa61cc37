/*
 * The thread that stands by (standby.h).
 *
 * In: a socket, bytes. Out: done, or an errno. Never: the bytes read after their send has ended.
 */
#include "standby.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define STACK_BYTES (64 * 1024)
/* One endpoint's pair takes 300. */
#define BYTES_MAX 4096

enum state { IDLE, BEGUN, DONE, OVER };

struct standby {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  pthread_t thread;
  enum state state;
  int fd;
  int error;
  size_t length;
  uint8_t bytes[BYTES_MAX];
};

static void *run(void *data) {
  struct standby *standby = data;
  pthread_mutex_lock(&standby->lock);
  while (standby->state != OVER) {
    if (standby->state != BEGUN) {
      pthread_cond_wait(&standby->changed, &standby->lock);
      continue;
    }
    pthread_mutex_unlock(&standby->lock);
    int error = 0;
    while (send(standby->fd, standby->bytes, standby->length, 0) < 0) {
      error = errno;
      if (error != EINTR) break;
      error = 0;
    }
    pthread_mutex_lock(&standby->lock);
    standby->error = error;
    standby->state = DONE;
    pthread_cond_signal(&standby->changed);
  }
  pthread_mutex_unlock(&standby->lock);
  return NULL;
}

struct standby *standby_new(void) {
  pthread_attr_t attributes;
  struct standby *standby = calloc(1, sizeof *standby);
  if (standby == NULL) return NULL;
  pthread_mutex_init(&standby->lock, NULL);
  pthread_cond_init(&standby->changed, NULL);
  int error = pthread_attr_init(&attributes);
  if (error == 0) {
    error = pthread_attr_setstacksize(&attributes, STACK_BYTES);
    if (error == 0) error = pthread_create(&standby->thread, &attributes, run, standby);
    pthread_attr_destroy(&attributes);
  }
  if (error == 0) return standby;
  free(standby);
  errno = error;
  return NULL;
}

int standby_begin(struct standby *standby, int fd, const uint8_t *bytes, size_t length) {
  if (length > sizeof standby->bytes) return EMSGSIZE;
  pthread_mutex_lock(&standby->lock);
  int error = standby->state == IDLE ? 0 : EBUSY;
  if (error == 0) {
    standby->fd = fd;
    standby->length = length;
    memcpy(standby->bytes, bytes, length);
    standby->state = BEGUN;
    pthread_cond_signal(&standby->changed);
  }
  pthread_mutex_unlock(&standby->lock);
  return error;
}

int standby_finish(struct standby *standby) {
  pthread_mutex_lock(&standby->lock);
  int error = standby->state == IDLE ? EINVAL : 0;
  if (error == 0) {
    while (standby->state != DONE) pthread_cond_wait(&standby->changed, &standby->lock);
    error = standby->error;
    standby->state = IDLE;
  }
  pthread_mutex_unlock(&standby->lock);
  return error;
}

void standby_free(struct standby *standby) {
  if (standby == NULL) return;
  standby_finish(standby);
  pthread_mutex_lock(&standby->lock);
  standby->state = OVER;
  pthread_cond_signal(&standby->changed);
  pthread_mutex_unlock(&standby->lock);
  pthread_join(standby->thread, NULL);
  pthread_cond_destroy(&standby->changed);
  pthread_mutex_destroy(&standby->lock);
  free(standby);
}
