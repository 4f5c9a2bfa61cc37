/**
 * Who talks to whom.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { compileBgp } from '../../../src/bgp/compile.ts';
import type { BgpNode } from '../../../src/bgp/config.ts';
import { type Address, parseAddress } from '../../../src/model/ip.ts';
import { aCluster } from './arbitrary.ts';
import { input, node, type Wanted } from './cluster.ts';

const reflector = (number: number, id = '244.0.0.1'): BgpNode =>
  node(number, { labels: { reflector: 'yes' }, routeReflectorClusterId: id as Address });
const toReflectors = { peerSelector: 'has(reflector)' };
const tor = { address: '192.0.2.254', asNumber: 65001 };

function peersOf(wanted: Wanted): string[] {
  return compileBgp(input(wanted))
    .sessions.map(({ type, node, peer, address }) => `${type} ${node ?? peer} ${address}`)
    .sort();
}

describe('the mesh', () => {
  test('is every other node, in each family that both have', () => {
    const six = (number: number) => ({ address6: parseAddress(`2001:db8::${number}`) });
    const nodes = {
      node1: node(1, six(1)),
      node2: node(2, six(2)),
      node3: node(3),
      node4: node(4, { address4: null, ...six(4) }),
    };
    assert.deepEqual(peersOf({ nodes }), [
      'mesh node2 192.0.2.2',
      'mesh node2 2001:db8::2',
      'mesh node3 192.0.2.3',
      'mesh node4 2001:db8::4',
    ]);
    assert.deepEqual(peersOf({ nodes, node: 'node4' }), ['mesh node1 2001:db8::1', 'mesh node2 2001:db8::2']);
  });

  test('can be switched off', () => {
    assert.deepEqual(peersOf({ settings: { mesh: false } }), []);
  });

  test('leaves out nodes without BIRD, and is nothing on one', () => {
    const nodes = { node1: node(1), node2: node(2, { bgpPort: null }), node3: node(3) };
    assert.deepEqual(peersOf({ nodes }), ['mesh node3 192.0.2.3']);
    assert.deepEqual(peersOf({ nodes, node: 'node2' }), []);
  });

  test('leaves out reflectors, on both sides', () => {
    const nodes = { node1: reflector(1), node2: node(2), node3: node(3) };
    assert.deepEqual(peersOf({ nodes }), []);
    assert.deepEqual(peersOf({ nodes, node: 'node2' }), ['mesh node3 192.0.2.3']);
  });

  test('goes to the port at which the other BIRD listens', () => {
    const nodes = { node1: node(1, { bgpPort: 1179 }), node2: node(2, { bgpPort: 2179 }) };
    const [session] = compileBgp(input({ nodes })).sessions;
    assert.deepEqual([session?.localPort, session?.port], [1179, 2179]);
  });

  test('takes the AS of each node, and that of the cluster where it has none', () => {
    const nodes = { node1: node(1, { asNumber: 64601 }), node2: node(2) };
    const [session] = compileBgp(input({ nodes, settings: { asNumber: 64999 } })).sessions;
    assert.deepEqual([session?.localAsNumber, session?.asNumber], [64601, 64999]);
  });
});

describe('a peer', () => {
  test('is for all nodes, for one, or for those that a selector picks', () => {
    const nodes = { node1: node(1, { labels: { rack: 'r1' } }), node2: node(2) };
    const settings = { mesh: false };
    const of = (peer: object, seenFrom: string) =>
      peersOf({ nodes, settings, node: seenFrom, peers: { peer } });
    assert.deepEqual(of(tor, 'node2'), ['global peer 192.0.2.254']);
    assert.deepEqual(of({ ...tor, node: 'node1' }, 'node1'), ['node peer 192.0.2.254']);
    assert.deepEqual(of({ ...tor, node: 'node1' }, 'node2'), []);
    assert.deepEqual(of({ ...tor, nodeSelector: 'rack == "r1"' }, 'node1'), ['selector peer 192.0.2.254']);
    assert.deepEqual(of({ ...tor, nodeSelector: 'rack == "r1"' }, 'node2'), []);
  });

  test('by selector stands on both sides, also where the record is for one of them', () => {
    const nodes = { node1: reflector(1), node2: node(2), node3: node(3) };
    const peers = { up: { ...toReflectors, nodeSelector: '!has(reflector)' } };
    assert.deepEqual(peersOf({ nodes, peers, settings: { mesh: false } }), [
      'selector node2 192.0.2.2',
      'selector node3 192.0.2.3',
    ]);
    assert.deepEqual(peersOf({ nodes, peers, node: 'node2', settings: { mesh: false } }), [
      'selector node1 192.0.2.1',
    ]);
  });

  test('that is the node itself is none', () => {
    assert.deepEqual(
      peersOf({ peers: { self: { address: '192.0.2.1', asNumber: 1 } }, settings: { mesh: false } }),
      [],
    );
  });

  test('for an address that the mesh has too takes its place', () => {
    assert.deepEqual(peersOf({ peers: { special: { address: '192.0.2.2', asNumber: 64512 } } }), [
      'global node2 192.0.2.2',
      'mesh node3 192.0.2.3',
    ]);
  });

  test('gives way to a more specific one, and that is said', () => {
    const config = compileBgp(
      input({
        settings: { mesh: false },
        peers: { all: tor, own: { ...tor, node: 'node1', holdSeconds: 9 } },
      }),
    );
    assert.deepEqual(
      config.sessions.map(({ peer, holdSeconds }) => [peer, holdSeconds]),
      [['own', 9]],
    );
    assert.deepEqual(config.problems, [
      'bgp-peer all: bgp-peer own stands for 192.0.2.254 on this node already',
    ]);
  });

  test('of a family in which the node has no address is a problem, not a session', () => {
    const config = compileBgp(
      input({ settings: { mesh: false }, peers: { six: { address: '2001:db8::1', asNumber: 65001 } } }),
    );
    assert.deepEqual(config.sessions, []);
    assert.deepEqual(config.problems, [
      'bgp-peer six: this node has no IPv6 address for the peer 2001:db8::1',
    ]);
  });

  test('whose filter is not there, or cannot be read, passes nothing, and that is said', () => {
    const config = compileBgp(
      input({
        peers: { tor: { ...tor, importFilters: ['gone'], exportFilters: ['broken'] } },
        filters: { broken: null, unused: { rules: [{ action: 'reject' }] } },
      }),
    );
    assert.deepEqual(config.filters, [
      { name: 'broken', rules: null },
      { name: 'gone', rules: null },
    ]);
    assert.deepEqual(config.problems, [
      'bgp-filter broken cannot be read: the sessions that use it pass nothing',
      'there is no bgp-filter gone: the sessions that use it pass nothing',
    ]);
  });

  test('is behind routers unless it is on a network of the node, or the record says so', () => {
    const isOnLink = (address: Address) => address !== tor.address;
    const multihop = (peer: object, settings = { mesh: false }) => {
      const config = compileBgp(input({ settings, peers: { peer }, isOnLink }));
      return [config.sessions[0]?.multihop, config.isRouted[4]];
    };
    assert.deepEqual(multihop(tor), [true, true]);
    assert.deepEqual(multihop({ ...tor, multihop: false }), [false, false]);
    assert.deepEqual(multihop({ ...tor, address: '192.0.2.253' }), [false, false]);
  });

  test('carries IPv4 over IPv6 where it is told to', () => {
    const nodes = { node1: node(1, { address6: parseAddress('2001:db8::1') }) };
    const peers = { six: { address: '2001:db8::fe', asNumber: 65001, extendedNextHop: true } };
    assert.deepEqual(compileBgp(input({ nodes, peers })).sessions[0]?.families, [4, 6]);
  });
});

describe('a reflector', () => {
  const nodes = {
    node1: reflector(1),
    node2: reflector(2),
    node3: reflector(3, '244.0.0.2'),
    node4: node(4),
  };
  const sessions = compileBgp(input({ nodes, peers: { reflectors: toReflectors, tor } })).sessions;
  const to = (name: string) => sessions.find(({ node, peer }) => (node ?? peer) === name);

  test('has as clients the nodes of its AS that are not of its cluster id', () => {
    assert.equal(to('node4')?.clientOf, '244.0.0.1');
    assert.equal(to('node3')?.clientOf, '244.0.0.1');
    assert.equal(to('node2')?.clientOf, null);
    assert.equal(to('tor')?.clientOf, null);
  });

  test('passes on what others announced; nobody else does', () => {
    assert.ok(sessions.every(({ passesOn }) => passesOn));
    const client = compileBgp(input({ nodes, node: 'node4', peers: { reflectors: toReflectors } }));
    assert.equal(client.sessions.length, 3);
    assert.ok(client.sessions.every(({ passesOn, clientOf }) => !passesOn && clientOf === null));
  });
});

test('between nodes each side has the session of the other: addresses, ports and AS swapped, one of them waiting', () => {
  fc.assert(
    fc.property(aCluster, (cluster) => {
      const configs = new Map(
        [...cluster.nodes.keys()].map((node) => [node, compileBgp({ ...cluster, node })]),
      );
      for (const [name, { sessions }] of configs) {
        for (const session of sessions.filter(({ onlyPools }) => onlyPools)) {
          const back = configs
            .get(session.node!)!
            .sessions.find(
              (other) => other.address === session.localAddress && other.localAddress === session.address,
            );
          // An own record of the other side for this very address may stand in its place.
          if (back === undefined || !back.onlyPools) continue;
          assert.equal(back.node, name);
          assert.deepEqual([back.port, back.localPort], [session.localPort, session.port]);
          assert.deepEqual(back.families, session.families);
          assert.ok(
            back.passive !== session.passive || cluster.peers.get(session.peer ?? '')?.passive === true,
          );
          if (session.type === 'mesh' && back.type === 'mesh') {
            assert.deepEqual([back.asNumber, back.localAsNumber], [session.localAsNumber, session.asNumber]);
            assert.equal(back.password, session.password);
          }
        }
      }
    }),
  );
});

test('in a mesh without records of peers nobody is alone with a session', () => {
  fc.assert(
    fc.property(aCluster, (cluster) => {
      const records = { ...cluster, peers: new Map() };
      const ends = [...cluster.nodes.keys()].flatMap((node) =>
        compileBgp({ ...records, node }).sessions.map(({ localAddress, address }) => [localAddress, address]),
      );
      const texts = new Set(ends.map((pair) => pair.join(' ')));
      for (const [from, to] of ends) assert.ok(texts.has(`${to} ${from}`), `${from} ${to}`);
    }),
  );
});

test('names of sessions are different, and the same as long as it is the same peer', () => {
  const before = compileBgp(input({ peers: { tor } }));
  const nodes = { node1: node(1), node2: node(22), node3: node(3), node4: node(4) };
  const after = compileBgp(input({ nodes, peers: { tor: { ...tor, holdSeconds: 9, password: 'x' } } }));
  const names = (config: typeof before) =>
    new Map(config.sessions.map(({ node, peer, protocol }) => [node ?? peer, protocol]));
  assert.equal(new Set(names(before).values()).size, 3);
  for (const [peer, protocol] of names(before)) assert.equal(names(after).get(peer), protocol);
  for (const protocol of names(after).values())
    assert.match(protocol, /^(mesh|node|selector|global)_[0-9a-f]{12}$/);
});

test('a node without IPv4 has an id of its own, always the same', () => {
  const ids = ['node1', 'node2', 'node1'].map(
    (name) => compileBgp(input({ node: name, nodes: { [name]: node(1, { address4: null }) } })).routerId,
  );
  assert.equal(ids[0], ids[2]);
  assert.notEqual(ids[0], ids[1]);
  assert.equal(parseAddress(ids[0]), ids[0]);
});
