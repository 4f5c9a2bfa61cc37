/**
 * The keys of the agent's configuration, in one table: name in the file, flag, default, meaning, and how a value is checked.
 *
 * In: raw values, from YAML or as text. Out: checked values. Never: a key that nobody reads.
 */
import { hostname } from 'node:os';
import { parseInterfaceName, parseNodeName } from '../model/names.ts';
import {
  absolutePath,
  boolean,
  hostAndPort,
  integer,
  keyPrefix,
  labels,
  nullable,
  ofFamily,
  oneOf,
  ports,
  text,
  urls,
} from './config-values.ts';

export interface Option {
  /** Path in the file. */
  readonly key: string;
  /** Name of the flag; the environment variable is NETCTL_ and the flag in capitals. */
  readonly flag: string;
  readonly fallback: unknown;
  readonly doc: string;
  /** @throws INVALID naming the key, from a YAML value or (flag, environment) a text */
  readonly parse: (value: unknown, key: string) => unknown;
}

/** Every key there is; docs/config.md is made from it. */
export const options: readonly Option[] = [
  {
    key: 'node.name',
    flag: 'node',
    fallback: hostname(),
    doc: 'Name of this host, unique in the cluster.',
    parse: parseNodeName,
  },
  {
    key: 'node.address4',
    flag: 'address',
    fallback: null,
    doc: 'IPv4 address by which other hosts reach this one.',
    parse: nullable(ofFamily(4)),
  },
  {
    key: 'node.address6',
    flag: 'address6',
    fallback: null,
    doc: 'IPv6 address by which other hosts reach this one.',
    parse: nullable(ofFamily(6)),
  },
  {
    key: 'node.asNumber',
    flag: 'as-number',
    fallback: null,
    doc: 'BGP AS number of this host; null for the cluster default.',
    parse: nullable(integer(1, 4294967295)),
  },
  {
    key: 'node.interface',
    flag: 'interface',
    fallback: null,
    doc: "Interface that leads to the other hosts; endpoints get its MTU. null takes the one with the node's address.",
    parse: nullable(parseInterfaceName),
  },
  {
    key: 'node.labels',
    flag: 'labels',
    fallback: {},
    doc: 'Labels of this host, for selectors; as a flag rack=r1,zone=a.',
    parse: labels,
  },
  {
    key: 'datastore.type',
    flag: 'datastore',
    fallback: 'embedded',
    doc: 'Where the state is kept: embedded is a database in the state directory, for one host; etcd is shared by all hosts.',
    parse: oneOf('embedded', 'etcd'),
  },
  {
    key: 'datastore.endpoints',
    flag: 'etcd-endpoints',
    fallback: [],
    doc: 'Addresses of the etcd members, such as https://10.0.0.1:2379; as a flag with commas between them.',
    parse: urls,
  },
  {
    key: 'datastore.prefix',
    flag: 'etcd-prefix',
    fallback: '/netctl/v1/',
    doc: 'In front of every key in etcd.',
    parse: keyPrefix,
  },
  {
    key: 'datastore.ca',
    flag: 'etcd-ca',
    fallback: null,
    doc: "File with the certificate authority of etcd's members.",
    parse: nullable(absolutePath),
  },
  {
    key: 'datastore.cert',
    flag: 'etcd-cert',
    fallback: null,
    doc: 'File with the client certificate for etcd.',
    parse: nullable(absolutePath),
  },
  {
    key: 'datastore.key',
    flag: 'etcd-key',
    fallback: null,
    doc: 'File with the key of the client certificate.',
    parse: nullable(absolutePath),
  },
  {
    key: 'datastore.username',
    flag: 'etcd-username',
    fallback: null,
    doc: 'User of etcd; null where etcd has no users.',
    parse: nullable(text),
  },
  {
    key: 'datastore.passwordFile',
    flag: 'etcd-password-file',
    fallback: null,
    doc: "File with the user's password.",
    parse: nullable(absolutePath),
  },
  {
    key: 'dataplane.policy',
    flag: 'dataplane',
    fallback: 'auto',
    doc: 'What enforces policy: nftables, or iptables with ipsets; auto is nftables where it works and nobody else uses FORWARD of iptables.',
    parse: oneOf('auto', 'nftables', 'iptables'),
  },
  {
    key: 'dataplane.iptablesBackend',
    flag: 'iptables-backend',
    fallback: 'auto',
    doc: 'Variant of iptables; auto takes what the command iptables is on this host.',
    parse: oneOf('auto', 'nft', 'legacy'),
  },
  {
    key: 'dataplane.foreignFirst',
    flag: 'foreign-first',
    fallback: false,
    doc: 'iptables: rules that others insert above our jumps stay there, and the status names them; else our jumps return to the top.',
    parse: boolean,
  },
  {
    key: 'dataplane.endpointToHost',
    flag: 'endpoint-to-host',
    fallback: 'drop',
    doc: "What a container may send to its own host, after its profile's outbound rules; return leaves it to the host's own rules.",
    parse: oneOf('drop', 'accept', 'return'),
  },
  {
    key: 'dataplane.macvlanPrivileged',
    flag: 'macvlan-privileged',
    fallback: 'flag',
    doc: 'A macvlan container with a process that may change its rules (CAP_NET_ADMIN): flag says so in the status, refuse closes it on the parent too.',
    parse: oneOf('flag', 'refuse'),
  },
  {
    key: 'dataplane.failsafeInbound',
    flag: 'failsafe-inbound',
    fallback: ['tcp:22', 'udp:68', 'tcp:179', 'udp:3784', 'udp:4784', 'udp:546', 'tcp:2379', 'tcp:2380'],
    doc: 'Ports of this host that no host endpoint closes: ssh, DHCP, BGP with BFD, etcd; as a flag tcp:22,udp:68.',
    parse: ports,
  },
  {
    key: 'dataplane.failsafeOutbound',
    flag: 'failsafe-outbound',
    fallback: [
      'tcp:22',
      'tcp:53',
      'udp:53',
      'udp:67',
      'tcp:179',
      'udp:3784',
      'udp:4784',
      'udp:547',
      'tcp:2379',
      'tcp:2380',
    ],
    doc: 'Ports elsewhere that this host reaches in spite of its host endpoints: the same, and DNS.',
    parse: ports,
  },
  {
    key: 'dataplane.mtuBytes',
    flag: 'mtu',
    fallback: 0,
    doc: 'MTU of endpoints; 0 takes that of node.interface.',
    parse: integer(0, 65535),
  },
  {
    key: 'dataplane.resyncSeconds',
    flag: 'resync-seconds',
    fallback: 60,
    doc: 'How often everything in the kernel is read back and compared.',
    parse: integer(1, 86400),
  },
  {
    key: 'dataplane.confirmMassDeletion',
    flag: 'confirm-mass-deletion',
    fallback: false,
    doc: 'Lets this start remove many endpoints that the store does not know (held back otherwise).',
    parse: boolean,
  },
  {
    key: 'ipam.collectSeconds',
    flag: 'collect-seconds',
    fallback: 300,
    doc: 'How often the agent looks for leaked addresses of this host; 0: only when `netctl ipam collect` asks for it.',
    parse: integer(0, 86400),
  },
  {
    key: 'ipam.collectGraceSeconds',
    flag: 'collect-grace-seconds',
    fallback: 900,
    doc: 'A leaked address is freed when it was seen leaked twice, this far apart.',
    parse: integer(1, 86400),
  },
  {
    key: 'api.listen',
    flag: 'api-listen',
    fallback: null,
    doc: 'Address and port for the API over TCP with mutual TLS, such as 10.0.0.1:7443; null: the unix socket only.',
    parse: nullable(hostAndPort),
  },
  {
    key: 'api.tls.cert',
    flag: 'api-cert',
    fallback: null,
    doc: 'File with the certificate of the API; SIGHUP reads the three files anew.',
    parse: nullable(absolutePath),
  },
  {
    key: 'api.tls.key',
    flag: 'api-key',
    fallback: null,
    doc: 'File with the key of that certificate.',
    parse: nullable(absolutePath),
  },
  {
    key: 'api.tls.clientCa',
    flag: 'api-client-ca',
    fallback: null,
    doc: 'File with the authority that signs client certificates; their scopes are URIs (docs/scheduler.md).',
    parse: nullable(absolutePath),
  },
  {
    key: 'metrics.listen',
    flag: 'metrics-listen',
    fallback: '127.0.0.1:9091',
    doc: 'Address and port for /metrics, /healthz and /readyz in the clear; null for none.',
    parse: nullable(hostAndPort),
  },
  {
    key: 'bgp.enabled',
    flag: 'bgp',
    fallback: true,
    doc: 'Whether this host speaks BGP with the others (by BIRD); false (the flag: --no-bgp) ends it and takes back what it announced.',
    parse: boolean,
  },
  {
    key: 'bgp.birdPath',
    flag: 'bird-path',
    fallback: '/usr/sbin/bird',
    doc: 'The program BIRD, version 2 (Debian: bird2). It is started when there is a peer, and goes on without the agent.',
    parse: absolutePath,
  },
  {
    key: 'bgp.listenPort',
    flag: 'bgp-port',
    fallback: 179,
    doc: 'TCP port of BGP on this host.',
    parse: integer(1, 65535),
  },
  {
    key: 'docker.socket',
    flag: 'docker-socket',
    fallback: null,
    doc: 'Socket for Docker as its network and IPAM plugin: /run/docker/plugins/netctl.sock; null for none (docs/docker.md).',
    parse: nullable(absolutePath),
  },
  {
    key: 'log.level',
    flag: 'log-level',
    fallback: 'info',
    doc: 'Least severity that is logged.',
    parse: oneOf('debug', 'info', 'warn', 'error'),
  },
  {
    key: 'log.format',
    flag: 'log-format',
    fallback: 'json',
    doc: 'json, one object a line, or text for people.',
    parse: oneOf('json', 'text'),
  },
  {
    key: 'runDir',
    flag: 'run-dir',
    fallback: '/run/netctl',
    doc: 'Sockets; made with mode 0700.',
    parse: absolutePath,
  },
  {
    key: 'stateDir',
    flag: 'state-dir',
    fallback: '/var/lib/netctl',
    doc: 'The embedded store and the delete queue; survives a reboot.',
    parse: absolutePath,
  },
  {
    key: 'cniConfigDir',
    flag: 'cni-config-dir',
    fallback: '/etc/cni/net.d',
    doc: 'Where `netctl attach` finds networks by their names, as a runtime does.',
    parse: absolutePath,
  },
];
