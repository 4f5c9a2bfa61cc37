#!/bin/sh
# provision.sh NUMBER PACKAGE: makes a Debian 12 machine host number NUMBER of the lab, with netctl from a package file.
#
# In: root on a machine that has 192.168.78.(20+NUMBER) on one of its interfaces; Debian packages reachable, or installed already.
# Out: netctld enabled and running; on the first machine etcd for all, and the pools. Can be run again. Never: a daemon
# of the distribution's left on the port that netctl's BIRD needs.
#
# Vagrantfile runs it on virtual machines, test/long/machines.test.ts in containers with systemd.
set -eu
number=$1
package=$2
address4=192.168.78.$((20 + number))
address6=fd00:78::$(printf %x $((20 + number)))
first=192.168.78.21
say() { printf '%s\n' "provision node$number: $*"; }

ip -4 -o address show | grep -qw "$address4" || { say "no interface has $address4" >&2; exit 1; }
interface=$(ip -4 -o address show | awk -v a="$address4" '$4 ~ "^" a "/" {print $2; exit}')

export DEBIAN_FRONTEND=noninteractive
packages=iputils-ping
[ "$number" != 1 ] || packages="$packages etcd-server"
missing=$(for one in $packages bird2 ipset iptables iproute2; do dpkg -s "$one" >/dev/null 2>&1 || echo "$one"; done)
if [ -n "$missing" ]; then
  say "fetching package lists"
  apt-get update -q
fi
# Debian's unit of BIRD would take port 179. Masked before the package comes, so that it never starts.
systemctl mask --now bird.service
[ "$number" != 1 ] || systemctl mask etcd.service
apt-get install -y -q --no-install-recommends --allow-downgrades $missing "$package"

hostnamectl --static set-hostname "node$number" 2>/dev/null || echo "node$number" >/etc/hostname
# The second address of the lab's network: boxes configure the first only.
cat >/etc/systemd/system/lab-address.service <<UNIT
[Unit]
Description=IPv6 address of the lab's network
After=network-online.target
Wants=network-online.target
Before=netctld.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'until ip link show dev $interface up | grep -q UP; do sleep 0.2; done; ip -6 address replace $address6/64 dev $interface nodad'

[Install]
WantedBy=multi-user.target
UNIT

if [ "$number" = 1 ]; then
  say 'etcd for all'
  cat >/etc/default/etcd <<ETCD
ETCD_NAME=node1
ETCD_DATA_DIR=/var/lib/etcd/default
ETCD_LISTEN_CLIENT_URLS=http://$first:2379
ETCD_ADVERTISE_CLIENT_URLS=http://$first:2379
ETCD_LISTEN_PEER_URLS=http://127.0.0.1:2380
ETCD_INITIAL_ADVERTISE_PEER_URLS=http://127.0.0.1:2380
ETCD_INITIAL_CLUSTER=node1=http://127.0.0.1:2380
ETCD
  systemctl unmask etcd.service
  systemctl daemon-reload
  systemctl enable etcd.service
  systemctl restart etcd.service
fi

cat >/etc/netctl/netctld.yaml <<CONFIG
# Made by the lab's provisioning; conf/netctld.yaml in the documentation shows all keys.
node: {name: node$number, address4: $address4, address6: "$address6"}
datastore: {type: etcd, endpoints: ["http://$first:2379"]}
CONFIG
install -D -m 644 /usr/share/doc/netctl/examples/10-netctl.conflist /etc/cni/net.d/10-netctl.conflist

systemctl daemon-reload
systemctl enable --now lab-address.service
systemctl enable netctld.service
systemctl restart netctld.service
if [ "$number" = 1 ]; then
  for pool in 10.65.0.0/16 fd00:65::/64; do
    netctl pool show -o json | grep -q "\"$pool\"" || netctl pool add "$pool"
  done
fi
say "netctld is $(systemctl is-active netctld.service)"
