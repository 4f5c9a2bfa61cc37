/**
 * What BIRD 2.0.12 answered on a host with one peer up and one away, read as values (replies/ holds its words).
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { compareAnnounced, compareSessions } from '../../../src/bgp/compare.ts';
import { compileBgp } from '../../../src/bgp/compile.ts';
import { parseConfigureReply, readReply } from '../../../src/bgp/reply.ts';
import { parseBfdSessions, parseLearned, parseSessions, parseStatus } from '../../../src/bgp/status.ts';
import { type Cidr, parseAddress } from '../../../src/model/ip.ts';
import { input, node } from './cluster.ts';

const reply = (name: string): string =>
  readFileSync(join(import.meta.dirname, 'replies', `${name}.txt`), 'utf8');
const time = (local: string): string => new Date(local).toISOString();

test('a reply is lines with codes; what continues has the code before', () => {
  assert.deepEqual(readReply('1007-Table master4:\n 10.0.0.0/8 blackhole\n\tvia x\n0013 Daemon is up\n'), [
    { code: 1007, text: 'Table master4:' },
    { code: 1007, text: '10.0.0.0/8 blackhole' },
    { code: 13, text: 'Daemon is up' },
  ]);
});

test('show status', () => {
  assert.deepEqual(parseStatus(reply('status')), {
    version: '2.0.12',
    routerId: '10.9.0.1',
    startedAt: time('2026-11-21T15:51:07.228'),
    configuredAt: time('2026-11-21T15:51:07.228'),
    isRecovering: false,
    isShuttingDown: false,
  });
  assert.equal(parseStatus(reply('status-recovering')).isRecovering, true);
});

describe('show protocols all', () => {
  test('gives the BGP sessions, and nothing else', () => {
    const sessions = parseSessions(reply('protocols'));
    assert.deepEqual(
      sessions.map(({ protocol, state }) => [protocol, state]),
      [
        ['mesh_80033cd91f67', 'Passive'],
        ['mesh_91b112c9166a', 'Established'],
        ['mesh_9d7bb5225f2c', 'Established'],
        ['mesh_a8b188ce0417', 'Passive'],
      ],
    );
    assert.deepEqual(sessions[2], {
      protocol: 'mesh_9d7bb5225f2c',
      state: 'Established',
      since: time('2026-11-21T15:51:09'),
      lastError: null,
      address: '10.9.0.2',
      asNumber: 64512,
      localAsNumber: 64512,
      channels: [{ family: 4, isUp: true, imported: 2, exported: 1 }],
    });
    assert.deepEqual(sessions[1]?.channels, [{ family: 6, isUp: true, imported: 1, exported: 1 }]);
    assert.deepEqual(sessions[0]?.channels, [{ family: 4, isUp: false, imported: 0, exported: 0 }]);
  });

  test('says why a session went down, while its routes are kept', () => {
    const session = parseSessions(reply('protocols-dead')).find(
      ({ protocol }) => protocol === 'mesh_9d7bb5225f2c',
    );
    assert.equal(session?.lastError, 'Error: BFD session down');
    assert.equal(session?.state, 'Passive');
    assert.deepEqual(session?.channels, [{ family: 4, isUp: false, imported: 2, exported: 0 }]);
  });

  test('says how many routes BIRD has from the kernel', () => {
    assert.deepEqual(parseLearned(reply('protocols')), { 4: 1, 6: 1 });
    assert.deepEqual(parseLearned('0000 \n'), { 4: 0, 6: 0 });
  });

  test('of a BIRD without sessions, or cut short, is read as far as it goes', () => {
    assert.deepEqual(parseSessions('0000 \n'), []);
    const whole = reply('protocols');
    for (let end = 0; end < whole.length; end += 97) parseSessions(whole.slice(0, end));
  });
});

test('show bfd sessions', () => {
  assert.deepEqual(
    parseBfdSessions(reply('bfd')).map(({ address, interface: name, isUp }) => [address, name, isUp]),
    [
      ['fd00:9::2', 'eth0', true],
      ['10.9.0.2', 'eth0', true],
      ['10.9.0.3', 'eth0', false],
      ['fd00:9::3', 'eth0', false],
    ],
  );
});

test('configure', () => {
  assert.deepEqual(parseConfigureReply(reply('configure')), { accepted: true, message: 'Reconfigured' });
  assert.deepEqual(parseConfigureReply(reply('configure-refused')), {
    accepted: false,
    message: '/run/netctl/bird.conf:1:1 syntax error, unexpected CF_SYM_UNDEFINED',
  });
  assert.equal(parseConfigureReply('0004 Reconfiguration in progress\n').accepted, true);
  assert.equal(parseConfigureReply('').accepted, false);
  assert.equal(parseConfigureReply('9001 syntax error\n').accepted, false);
});

describe('compared with what is wanted', () => {
  const at = (number: number) =>
    node(number, {
      address4: parseAddress(`10.9.0.${number}`),
      address6: parseAddress(`fd00:9::${number}`),
    });
  const wanted = (more: object = {}) =>
    compileBgp(input({ nodes: { node1: at(1), node2: at(2), node3: at(3) }, ...more }));
  const running = parseSessions(reply('protocols'));

  test('a BIRD with the same sessions agrees, though some of them are not established', () => {
    assert.deepEqual(compareSessions(wanted(), running), []);
  });

  test('what is missing, too much or different is named', () => {
    assert.deepEqual(compareSessions(wanted(), running.slice(1)), [
      'session with 10.9.0.3 (node3): BIRD does not have it',
    ]);
    assert.deepEqual(compareSessions(wanted({ settings: { mesh: false } }), running.slice(0, 1)), [
      'session mesh_80033cd91f67 with 10.9.0.3: BIRD has it, and nothing asks for it',
    ]);
    assert.deepEqual(
      compareSessions(wanted({ settings: { asNumber: 64999 } }), running.slice(0, 1)).slice(0, 2),
      [
        'session with 10.9.0.3 (node3): the AS is 64512 instead of 64999',
        'session with 10.9.0.3 (node3): our own AS is 64512 instead of 64999',
      ],
    );
  });

  describe('the prefixes that the kernel has for other hosts', () => {
    const pools = ['10.65.0.0/16', 'fd65::/48'];
    const both = ['10.65.1.0/26', 'fd65::/64', '10.99.0.0/24'] as Cidr[];
    const learned = parseLearned(reply('protocols'));

    test('agree, when BIRD has those of the pools and every peer was told', () => {
      assert.deepEqual(compareAnnounced(wanted({ pools }), both, learned, running), []);
    });

    test('that BIRD has not heard of, or still believes in, are counted', () => {
      const more = [...both, '10.65.2.0/26' as Cidr];
      assert.deepEqual(compareAnnounced(wanted({ pools }), more, learned, running), [
        'IPv4: 2 prefixes are to be announced, BIRD knows of 1',
      ]);
      assert.deepEqual(compareAnnounced(wanted({ pools }), [], { 4: 0, 6: 1 }, []), [
        'IPv6: 0 prefixes are to be announced, BIRD knows of 1',
      ]);
    });

    test('may be fewer than BIRD knows where it also knows the way to next hops', () => {
      const isOnLink = (): boolean => false;
      assert.deepEqual(compareAnnounced(wanted({ pools, isOnLink }), both, { 4: 3, 6: 2 }, running), []);
    });

    test('that a peer was not told are named with it, unless a filter may hold them back', () => {
      const more = [...both, '10.65.2.0/26' as Cidr];
      assert.deepEqual(compareAnnounced(wanted({ pools }), more, { 4: 2, 6: 1 }, running), [
        'session with 10.9.0.2 (node2): 1 of 2 IPv4 prefixes announced',
      ]);
      const peers = { all: { peerSelector: 'all()', exportFilters: ['some'] } };
      const filters = { some: { rules: [{ action: 'reject' }] } };
      const config = wanted({ pools, peers, filters });
      const renamed = running.map((session) => ({ ...session, protocol: config.sessions[0]!.protocol }));
      assert.deepEqual(compareAnnounced(config, more, { 4: 2, 6: 1 }, renamed), []);
    });
  });
});
