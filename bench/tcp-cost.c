/*
 * tcp-cost ROUNDS ROUND_TRIPS CONNECTIONS MEBIBYTES PORT NAME=CLIENT_NETNS,SERVER_NETNS,ADDRESS...: what TCP costs on several paths.
 *
 * In: paths, each from one network namespace to an address in another one. Out: a line `NAME rr|crr|bulk NANOSECONDS` per path, kind
 * and round: CPU time of this one thread for one round trip of a byte on an open connection, for one connection (connect, a byte
 * each way, close), or for one mebibyte sent one way (not measured where MEBIBYTES is 0). On veth the kernel does the work of both directions inside our own system calls, on our CPU, so that this is the
 * cost of the whole path, whatever else the machine does. Rounds take the paths in random order, so that what changes with time
 * falls on all. Never: time spent waiting counted.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PATHS = 64, BACKLOG = 16, WAIT_SECONDS = 2, MEBIBYTE = 1 << 20, CHUNK_BYTES = 256 << 10, BUFFER_BYTES = 4 << 20 };

struct path {
  const char *name;
  int client_netns, listener, client, server;
  struct sockaddr_in address;
};

static void die(const char *what, const char *name) {
  fprintf(stderr, "tcp-cost: %s: %s: %s\n", name, what, strerror(errno));
  exit(1);
}

static uint64_t cpu_nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int open_netns(const char *name) {
  char file[256];
  snprintf(file, sizeof file, "/run/netns/%s", name);
  int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0) die("open network namespace", name);
  return fd;
}

static int new_socket(int netns, const char *name) {
  struct timeval wait = {.tv_sec = WAIT_SECONDS};
  if (setns(netns, CLONE_NEWNET) < 0) die("setns", name);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket", name);
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
  return fd;
}

static void pass(int from, int to, const char *name) {
  char byte = 'x';
  if (send(from, &byte, 1, MSG_NOSIGNAL) != 1) die("send", name);
  if (recv(to, &byte, 1, 0) != 1) die("receive", name);
}

static void join(const struct path *path, int *client, int *server) {
  *client = new_socket(path->client_netns, path->name);
  if (connect(*client, (const struct sockaddr *)&path->address, sizeof path->address) < 0) die("connect", path->name);
  *server = accept4(path->listener, NULL, NULL, SOCK_CLOEXEC);
  if (*server < 0) die("accept", path->name);
}

/* Both ends by reset, so that nothing stays behind. */
static void leave(int client, int server) {
  struct linger at_once = {.l_onoff = 1};
  setsockopt(client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close(client);
  close(server);
}

static uint64_t round_trips(const struct path *path, int count) {
  uint64_t start = cpu_nanoseconds();
  for (int i = 0; i < count; i++) {
    pass(path->client, path->server, path->name);
    pass(path->server, path->client, path->name);
  }
  return (cpu_nanoseconds() - start) / (uint64_t)count;
}

static uint64_t connections(const struct path *path, int count) {
  uint64_t start = cpu_nanoseconds();
  for (int i = 0; i < count; i++) {
    int client, server;
    join(path, &client, &server);
    pass(client, server, path->name);
    pass(server, client, path->name);
    leave(client, server);
  }
  return (cpu_nanoseconds() - start) / (uint64_t)count;
}

/* What fits into the buffers is sent, then what has arrived is read: the thread never waits. */
static void transfer(const struct path *path, int client, int server, uint64_t total) {
  static char chunk[CHUNK_BYTES];
  uint64_t sent = 0, received = 0;
  while (received < total) {
    size_t left = total - sent < sizeof chunk ? (size_t)(total - sent) : sizeof chunk;
    ssize_t out = left == 0 ? 0 : send(client, chunk, left, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (out < 0 && errno != EAGAIN) die("send", path->name);
    if (out > 0) sent += (uint64_t)out;
    ssize_t in = recv(server, chunk, sizeof chunk, out > 0 ? MSG_DONTWAIT : 0);
    if (in < 0 && errno != EAGAIN) die("receive", path->name);
    if (in > 0) received += (uint64_t)in;
  }
}

/* On a connection of its own, whose windows have opened: round trips with pauses between them have made the other one slow. */
static uint64_t bulk(const struct path *path, int mebibytes) {
  int client, server, bytes = BUFFER_BYTES;
  uint64_t total = (uint64_t)mebibytes * MEBIBYTE;
  join(path, &client, &server);
  setsockopt(client, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
  setsockopt(server, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
  transfer(path, client, server, total / 2);
  uint64_t start = cpu_nanoseconds();
  transfer(path, client, server, total);
  uint64_t took = cpu_nanoseconds() - start;
  leave(client, server);
  return took / (uint64_t)mebibytes;
}

static struct path parse(char *text, int port) {
  struct path path = {.name = strtok(text, "=")};
  char *client = strtok(NULL, ","), *server = strtok(NULL, ","), *address = strtok(NULL, ",");
  if (address == NULL) {
    fputs("usage: tcp-cost ROUNDS ROUND_TRIPS CONNECTIONS MEBIBYTES PORT NAME=CLIENT_NETNS,SERVER_NETNS,ADDRESS...\n", stderr);
    exit(2);
  }
  int server_netns = open_netns(server);
  path.client_netns = open_netns(client);
  path.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  if (inet_pton(AF_INET, address, &path.address.sin_addr) != 1) die("address", path.name);
  path.listener = new_socket(server_netns, path.name);
  if (bind(path.listener, (struct sockaddr *)&path.address, sizeof path.address) < 0) die("bind", path.name);
  if (listen(path.listener, BACKLOG) < 0) die("listen", path.name);
  close(server_netns);
  join(&path, &path.client, &path.server);
  return path;
}

int main(int argc, char **argv) {
  static struct path paths[MAX_PATHS];
  int order[MAX_PATHS], count = argc - 6;
  cpu_set_t here;
  if (count < 1 || count > MAX_PATHS) return 2;
  CPU_ZERO(&here);
  CPU_SET(sched_getcpu(), &here);
  sched_setaffinity(0, sizeof here, &here);
  int rounds = atoi(argv[1]), trips = atoi(argv[2]), new_ones = atoi(argv[3]), mebibytes = atoi(argv[4]);
  srand((unsigned)getpid());
  for (int i = 0; i < count; i++) {
    paths[i] = parse(argv[6 + i], atoi(argv[5]));
    order[i] = i;
  }
  /* The first round warms up. */
  for (int round = 0; round <= rounds; round++) {
    for (int i = count - 1; i > 0; i--) {
      int other = rand() % (i + 1), swapped = order[i];
      order[i] = order[other];
      order[other] = swapped;
    }
    for (int i = 0; i < count; i++) {
      const struct path *path = &paths[order[i]];
      uint64_t rr = round_trips(path, trips), crr = connections(path, new_ones);
      uint64_t one_way = mebibytes == 0 ? 0 : bulk(path, mebibytes);
      if (round == 0) continue;
      if (mebibytes > 0) printf("%s bulk %llu\n", path->name, (unsigned long long)one_way);
      printf("%s rr %llu\n%s crr %llu\n", path->name, (unsigned long long)rr, path->name, (unsigned long long)crr);
    }
  }
  return 0;
}
