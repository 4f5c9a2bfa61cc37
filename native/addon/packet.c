/*
 * Packet sockets (packet(7)): whole frames of one protocol on one link, for what the kernel does not send or tell by itself.
 *
 * In: a namespace, a link of it, a protocol. Out: a socket that sends and receives as a netlink socket does. Never: a frame of
 * another link.
 */
#include "netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>
#include <unistd.h>

/* Without a protocol until it is bound to its link: nothing of other links is queued in between. */
static int open_socket(const void *unused) {
  (void)unused;
  return socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/*
 * Of all protocols, only what tells who has an address, and only what arrives: ARP, neighbour solicitations and advertisements. Such a
 * socket hears frames before any rule on the link may drop them; without the filter it would be handed all traffic.
 */
static int hear_address_talk(int fd) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_ARP, 6, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IPV6, 0, 6),
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 20),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 58, 0, 4),
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 54),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 135, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 136, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 256),
      BPF_STMT(BPF_RET | BPF_K, 0),
  };
  const struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
  const int yes = 1;
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0 &&
                 setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes) == 0
             ? 0
             : -1;
}

/* openPacket(netnsFd | -1, linkIndex, protocol) → socket; protocol is a number of linux/if_ether.h */
static napi_value open_packet(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  int64_t netns, index, protocol;
  struct addon *addon = addon_of(env);
  if (addon == NULL || !get_arguments(env, info, 3, arguments) ||
      !get_integer(env, arguments[0], "netnsFd", -1, INT32_MAX, &netns) ||
      !get_integer(env, arguments[1], "linkIndex", 1, INT32_MAX, &index) ||
      !get_integer(env, arguments[2], "protocol", 1, UINT16_MAX, &protocol)) {
    return NULL;
  }
  int fd = in_netns(addon, (int)netns, open_socket, NULL);
  if (fd < 0) return throw_system_error(env, "open a packet socket", errno);
  const struct sockaddr_ll link = {
      .sll_family = AF_PACKET, .sll_ifindex = (int)index, .sll_protocol = htons((uint16_t)protocol)};
  if ((protocol == ETH_P_ALL && hear_address_talk(fd) != 0) ||
      bind(fd, (const struct sockaddr *)&link, sizeof link) != 0) {
    int error = errno;
    close(fd);
    return throw_system_error(env, "bind a packet socket", error);
  }
  return wrap_socket(env, fd, false);
}

napi_status define_packets(napi_env env, napi_value exports) {
  const napi_property_descriptor functions[] = {FUNCTION("openPacket", open_packet)};
  return define_functions(env, exports, functions, sizeof functions / sizeof functions[0]);
}
