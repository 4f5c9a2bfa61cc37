/*
 * packet-io INTERFACE...: puts frames onto interfaces and tells which frames arrive, run in the namespace of the far ends.
 *
 * In, on standard input: batches of records (interface number, length in two bytes little-endian, frame), each ended by a record
 * of length 0. The last frame of a batch is its sentinel: all others were sent before it on the same CPU, so that what has not
 * arrived when it does was dropped. Out: the frames that arrived, in the same form, ended likewise; the last one is the sentinel,
 * unless it did not come within two seconds. Never: a frame told that we have sent ourselves.
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_INTERFACES = 64, MAX_FRAME = 2048, MARK_BYTES = 8, WAIT_MS = 2000, BUFFER_BYTES = 8 << 20 };

static int sockets[MAX_INTERFACES];
static int interfaces;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static int open_interface(const char *name) {
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
  int size = BUFFER_BYTES;
  struct sockaddr_ll address = {
    .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex(name)};
  if (fd < 0 || address.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die(name);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  return fd;
}

static void put(int interface, const uint8_t *frame, size_t length) {
  uint8_t head[3] = {(uint8_t)interface, (uint8_t)(length & 0xff), (uint8_t)(length >> 8)};
  if (fwrite(head, 1, sizeof head, stdout) != sizeof head || fwrite(frame, 1, length, stdout) != length) die("write");
}

/* Tells all that has arrived; true when the sentinel was among it. */
static int drain(const uint8_t *mark) {
  int found = 0;
  for (int i = 0; i < interfaces; i++) {
    uint8_t frame[MAX_FRAME];
    struct sockaddr_ll from;
    socklen_t size = sizeof from;
    ssize_t length;
    while ((length = recvfrom(sockets[i], frame, sizeof frame, MSG_DONTWAIT, (struct sockaddr *)&from, &size)) > 0) {
      size = sizeof from;
      if (from.sll_pkttype == PACKET_OUTGOING) continue;
      put(i, frame, (size_t)length);
      if (length >= MARK_BYTES && memcmp(frame + length - MARK_BYTES, mark, MARK_BYTES) == 0) found = 1;
    }
  }
  return found;
}

static void wait_for(const uint8_t *mark) {
  struct pollfd polls[MAX_INTERFACES];
  for (int i = 0; i < interfaces; i++) polls[i] = (struct pollfd){.fd = sockets[i], .events = POLLIN};
  while (!drain(mark))
    if (poll(polls, (nfds_t)interfaces, WAIT_MS) == 0) return;
}

int main(int argc, char **argv) {
  cpu_set_t here;
  interfaces = argc - 1;
  if (interfaces < 1 || interfaces > MAX_INTERFACES) return 2;
  CPU_ZERO(&here);
  CPU_SET(sched_getcpu(), &here);
  sched_setaffinity(0, sizeof here, &here);
  for (int i = 0; i < interfaces; i++) sockets[i] = open_interface(argv[i + 1]);

  uint8_t mark[MARK_BYTES] = {0};
  for (;;) {
    uint8_t head[3], frame[MAX_FRAME];
    if (fread(head, 1, sizeof head, stdin) != sizeof head) return 0;
    size_t length = head[1] | (size_t)head[2] << 8;
    if (length == 0) {
      wait_for(mark);
      put(0, NULL, 0);
      fflush(stdout);
    } else {
      if (length > sizeof frame || length < MARK_BYTES || head[0] >= interfaces) return 2;
      if (fread(frame, 1, length, stdin) != length) return 2;
      if (send(sockets[head[0]], frame, length, 0) < 0) die("send");
      memcpy(mark, frame + length - MARK_BYTES, MARK_BYTES);
    }
  }
}
