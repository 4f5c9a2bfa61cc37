/*
 * route-limit COUNT LINK with|without: the kernel's share in writing routes to containers, as a limit for any program.
 *
 * In: a link of the caller's network namespace that is up. Out: COUNT routes from 10.96.0.1 on, `with` a permanent neighbour before
 * each, as rtnetlink(7) messages, 500 in one write. Nothing is read but the answer to each write's last message, nothing computed
 * but the next address: whatever a program does beyond this is its own. Never: an ending with 0 when one was refused.
 */
#include <arpa/inet.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { per_write = 500, first_address = 0x0a600001 };

struct word {
  struct rtattr head;
  unsigned value;
};

struct route {
  struct nlmsghdr head;
  struct rtmsg body;
  struct word destination, link;
};

struct neighbour {
  struct nlmsghdr head;
  struct ndmsg body;
  struct word destination;
  struct rtattr mac;
  unsigned char octets[8];
};

static struct word word(unsigned short type, unsigned value) {
  return (struct word){{sizeof(struct word), type}, value};
}

static void refuse(const char *what) {
  perror(what);
  exit(1);
}

int main(int argc, char **argv) {
  int link = argc == 4 ? (int)if_nametoindex(argv[2]) : 0;
  if (link == 0) {
    fprintf(stderr, "usage: route-limit COUNT LINK with|without\n");
    return 2;
  }
  int with = strcmp(argv[3], "with") == 0;
  int kernel = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), space = 1 << 20;
  if (kernel < 0 || setsockopt(kernel, SOL_SOCKET, SO_SNDBUFFORCE, &space, sizeof space) < 0) refuse("netlink");
  static char text[per_write * (sizeof(struct route) + sizeof(struct neighbour))];
  unsigned short flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE;
  int count = atoi(argv[1]), length = 0;
  for (int i = 0; i < count; i++) {
    unsigned address = first_address + (unsigned)i;
    if (with) {
      struct neighbour one = {{sizeof one, RTM_NEWNEIGH, flags, 0, 0},
                              {.ndm_family = AF_INET, .ndm_ifindex = link, .ndm_state = NUD_PERMANENT},
                              word(NDA_DST, htonl(address)), {10, NDA_LLADDR}, {2}};
      one.octets[5] = (unsigned char)i;
      memcpy(text + length, &one, sizeof one);
      length += (int)sizeof one;
    }
    struct route one = {{sizeof one, RTM_NEWROUTE, flags, 0, 0},
                        {.rtm_family = AF_INET, .rtm_dst_len = 32, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = 110,
                         .rtm_scope = RT_SCOPE_LINK, .rtm_type = RTN_UNICAST},
                        word(RTA_DST, htonl(address)), word(RTA_OIF, (unsigned)link)};
    int is_last = i % per_write == per_write - 1 || i == count - 1;
    if (is_last) one.head.nlmsg_flags |= NLM_F_ACK;
    memcpy(text + length, &one, sizeof one);
    length += (int)sizeof one;
    if (!is_last) continue;
    if (send(kernel, text, (size_t)length, 0) != length) refuse("send");
    length = 0;
    struct {
      struct nlmsghdr head;
      struct nlmsgerr body;
      char more[256];
    } answer;
    // A refusal comes before the answer to the last, which is then left unread: one is enough.
    if (recv(kernel, &answer, sizeof answer, 0) < 0 || answer.head.nlmsg_type != NLMSG_ERROR) refuse("recv");
    if (answer.body.error != 0) {
      fprintf(stderr, "refused: %s\n", strerror(-answer.body.error));
      return 1;
    }
  }
  return 0;
}
