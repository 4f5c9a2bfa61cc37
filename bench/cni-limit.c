/*
 * A CNI plugin that does nothing but what the kernel must be asked for: the same links, addresses, neighbours and routes as netctl's
 * routed endpoint, in the same two batches of rtnetlink; DEL deletes the link and waits for the kernel's word.
 *
 * In: CNI_COMMAND, CNI_NETNS, and the number at the end of CNI_CONTAINERID, from which names, indexes and the address are made. Out: exit
 * status 0, or 1 with the first error. It stores nothing, checks nothing, has no policy and forgets: a lower bound for what a
 * plugin can take, nothing to run.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_INDEX 0x100000
#define MTU 1500

static const uint8_t host_mac[6] = {0xee, 0xee, 0xee, 0xee, 0xee, 0xee};
static const uint8_t gateway[4] = {169, 254, 1, 1};

static uint8_t batch[4096];
static size_t length;
static uint32_t sequence;
static size_t message_at;

static void fail(const char *what, int error) {
  printf("%s: %s\n", what, strerror(error));
  exit(1);
}

static void *put(const void *bytes, size_t size) {
  void *at = batch + length;
  if (bytes != NULL) memcpy(at, bytes, size);
  length += NLMSG_ALIGN(size);
  return at;
}

static void message(uint16_t type, uint16_t flags, const void *body, size_t size) {
  message_at = length;
  const struct nlmsghdr header = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags, .nlmsg_seq = ++sequence};
  put(&header, sizeof header);
  put(body, size);
}

static void end_message(void) {
  ((struct nlmsghdr *)(batch + message_at))->nlmsg_len = (uint32_t)(length - message_at);
}

static void attribute(uint16_t type, const void *bytes, size_t size) {
  const struct rtattr header = {.rta_len = (uint16_t)RTA_LENGTH(size), .rta_type = type};
  put(&header, sizeof header);
  put(bytes, size);
}

static size_t open_nest(uint16_t type) {
  size_t at = length;
  attribute(type, NULL, 0);
  return at;
}

static void close_nest(size_t at) {
  ((struct rtattr *)(batch + at))->rta_len = (uint16_t)(length - at);
}

static void number(uint16_t type, uint32_t value) {
  attribute(type, &value, sizeof value);
}

static void link_attributes(const char *name, const uint8_t mac[6]) {
  attribute(IFLA_IFNAME, name, strlen(name) + 1);
  attribute(IFLA_ADDRESS, mac, 6);
  number(IFLA_MTU, MTU);
  number(IFLA_NUM_TX_QUEUES, 1);
  number(IFLA_NUM_RX_QUEUES, 1);
}

static void add_pair(const char *name, int index, const uint8_t mac[6], int netns) {
  struct ifinfomsg link = {.ifi_index = index};
  message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
  link_attributes(name, host_mac);
  size_t info = open_nest(IFLA_LINKINFO | NLA_F_NESTED);
  attribute(IFLA_INFO_KIND, "veth", 5);
  size_t data = open_nest(IFLA_INFO_DATA | NLA_F_NESTED), peer = open_nest(VETH_INFO_PEER | NLA_F_NESTED);
  link.ifi_index = index + 1;
  put(&link, sizeof link);
  link_attributes("eth0", mac);
  number(IFLA_NET_NS_FD, (uint32_t)netns);
  close_nest(peer);
  close_nest(data);
  close_nest(info);
  end_message();
}

static void set_link(int index, int up) {
  struct ifinfomsg link = {.ifi_index = index, .ifi_flags = up ? IFF_UP : 0, .ifi_change = up ? IFF_UP : 0};
  message(RTM_NEWLINK, 0, &link, sizeof link);
  if (!up) {
    const uint8_t none = IN6_ADDR_GEN_MODE_NONE;
    size_t families = open_nest(IFLA_AF_SPEC | NLA_F_NESTED), family = open_nest(AF_INET6 | NLA_F_NESTED);
    attribute(IFLA_INET6_ADDR_GEN_MODE, &none, sizeof none);
    close_nest(family);
    close_nest(families);
  }
  end_message();
}

static void add_neighbour(int index, const uint8_t address[4], const uint8_t mac[6]) {
  const struct ndmsg neighbour = {.ndm_family = AF_INET, .ndm_ifindex = index, .ndm_state = NUD_PERMANENT};
  message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &neighbour, sizeof neighbour);
  attribute(NDA_DST, address, 4);
  attribute(NDA_LLADDR, mac, 6);
  end_message();
}

/* To one address by the link itself, or to everything by the gateway. */
static void add_route(int index, const uint8_t *address) {
  const struct rtmsg route = {.rtm_family = AF_INET,
                              .rtm_dst_len = address != NULL ? 32 : 0,
                              .rtm_table = RT_TABLE_MAIN,
                              .rtm_protocol = 110,
                              .rtm_scope = address != NULL ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
                              .rtm_type = RTN_UNICAST};
  message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &route, sizeof route);
  attribute(address != NULL ? RTA_DST : RTA_GATEWAY, address != NULL ? address : gateway, 4);
  number(RTA_OIF, (uint32_t)index);
  end_message();
}

static void add_address(int index, const uint8_t address[4]) {
  const struct ifaddrmsg own = {.ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = (uint32_t)index};
  message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &own, sizeof own);
  attribute(IFA_LOCAL, address, 4);
  attribute(IFA_ADDRESS, address, 4);
  end_message();
}

/* Only the last message is acknowledged; errors are told anyway. */
static void exchange(int fd) {
  uint8_t answer[65536];
  ((struct nlmsghdr *)(batch + message_at))->nlmsg_flags |= NLM_F_ACK;
  if (send(fd, batch, length, 0) < 0) fail("send", errno);
  for (;;) {
    ssize_t got = recv(fd, answer, sizeof answer, 0);
    if (got < 0) fail("receive", errno);
    int left = (int)got;
    for (struct nlmsghdr *at = (struct nlmsghdr *)answer; NLMSG_OK(at, left); at = NLMSG_NEXT(at, left)) {
      if (at->nlmsg_type != NLMSG_ERROR) continue;
      int error = -((struct nlmsgerr *)NLMSG_DATA(at))->error;
      if (error != 0) fail("kernel", error);
      if (at->nlmsg_seq == sequence) {
        length = 0;
        return;
      }
    }
  }
}

static int open_route(void) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) fail("socket", errno);
  return fd;
}

int main(void) {
  const char *command = getenv("CNI_COMMAND"), *id = getenv("CNI_CONTAINERID"), *path = getenv("CNI_NETNS");
  const char *dash = id == NULL ? NULL : strrchr(id, '-');
  if (command == NULL || dash == NULL || path == NULL) fail("environment", EINVAL);
  uint32_t n = (uint32_t)atoi(dash + 1);
  int index = FIRST_INDEX + 2 * (int)n, host = open_route();
  char name[IFNAMSIZ];
  snprintf(name, sizeof name, "limit%u", n);
  const uint8_t address[4] = {10, 70, (uint8_t)(n >> 8), (uint8_t)n};
  const uint8_t mac[6] = {2, 0, 10, 70, (uint8_t)(n >> 8), (uint8_t)n};

  if (strcmp(command, "DEL") == 0) {
    const struct ifinfomsg link = {.ifi_index = index};
    message(RTM_DELLINK, 0, &link, sizeof link);
    end_message();
    exchange(host);
    return 0;
  }
  int netns = open(path, O_RDONLY | O_CLOEXEC);
  if (netns < 0) fail(path, errno);
  add_pair(name, index, mac, netns);
  set_link(index, 0);
  set_link(index, 1);
  add_neighbour(index, address, mac);
  add_route(index, address);
  exchange(host);

  if (setns(netns, CLONE_NEWNET) != 0) fail("setns", errno);
  int container = open_route();
  set_link(index + 1, 0);
  add_address(index + 1, address);
  set_link(index + 1, 1);
  add_neighbour(index + 1, gateway, host_mac);
  add_route(index + 1, gateway);
  add_route(index + 1, NULL);
  exchange(container);

  /* The carrier settles when somebody asks: without that the first packets may be lost. */
  const struct ifinfomsg link = {.ifi_index = index};
  message(RTM_GETLINK, 0, &link, sizeof link);
  end_message();
  exchange(host);
  return 0;
}
