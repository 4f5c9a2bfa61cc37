/**
 * `make demo`: one host, three containers, three profiles, on the real kernel; every line a claim that is checked.
 *
 * In: a finished build, conf/; runs in scripts/sandbox. Out: the story on standard output; exit code 0 only if all claims held.
 * Never: a result that is told without having been seen.
 */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Claims, Stop } from './claims.ts';
import { type Conflist, Container, connectFrom } from './container.ts';
import { Host } from './host.ts';
import { difference, readState, rulePackets } from './kernel-state.ts';
import { type Expected, type Peer, tryMatrix } from './matrix.ts';
import { eventually, follow, type Result } from './run.ts';

const conf = resolve(import.meta.dirname, '../conf');
const conflist = JSON.parse(readFileSync(join(conf, '10-netctl.conflist'), 'utf8')) as Conflist;
const names = ['web', 'app', 'db'] as const;
const ports = [22, 80, 443, 3306, 8080];
/** The profiles of conf/examples in one table; a host always reaches its own containers. */
const expected: Expected = {
  'web → app': ports,
  'web → db': [],
  'app → web': [80, 443],
  'app → db': [3306],
  'db → web': [80, 443],
  'db → app': [],
  'host → db': ports,
};

interface Member {
  readonly container: Container;
  address: string;
}
type Members = Record<(typeof names)[number], Member>;

const claims = new Claims();
const host = await Host.create({ name: 'node1', address: '192.168.78.21' });
const members = {} as Members;
try {
  for (const name of names) members[name] = { container: await Container.create(host, name), address: '' };
  await tell();
} catch (error) {
  if (!(error instanceof Stop)) await claims.claim('the demo runs to its end', () => Promise.reject(error));
} finally {
  for (const { container } of Object.values(members)) await container.close();
  await host.close();
}
process.exitCode = claims.finish();

async function tell(): Promise<void> {
  await startAgent();
  const empty = await readState(host);
  await join3();
  await showKernel();
  await checkMatrix('connections succeed exactly where the profiles allow them');
  await checkTag();
  await checkSpoofing();
  await checkRestart();
  await leave(empty);
}

async function startAgent(): Promise<void> {
  claims.heading('A host with the agent and its embedded store');
  const started = performance.now();
  await claims.must(
    'netctld starts',
    () => host.start(['--config', join(conf, 'netctld.yaml')]).then(() => undefined),
    () => since(started),
  );
  await claims.must('a pool of addresses is added', () =>
    netctl('pool', 'add', '10.65.0.0/24', '--cooldown', '1'),
  );
  for (const name of names) {
    await claims.must(
      `profile ${name} is added, with the rules of conf/examples/${name}-rule.json`,
      async () => {
        await netctl('profile', 'add', name);
        await update(name, `${name}-rule.json`);
        return undefined;
      },
    );
  }
}

async function join3(): Promise<void> {
  claims.heading('Three containers join by CNI ADD');
  for (const name of names) {
    const member = members[name];
    const started = performance.now();
    let took = '';
    await claims.must(
      `${name} gets an address`,
      async () => {
        const result = await member.container.cniAdd(conflist, { args: `NETCTL_PROFILE=${name}` });
        took = since(started);
        member.address = result.ips[0]?.address.split('/')[0] ?? '';
        const held = await member.container.mustExec(['ip', '-4', '-o', 'address', 'show', 'eth0']);
        return held.includes(` ${member.address}/32 `) ? undefined : `eth0 has: ${held}`;
      },
      () => `${member.address}, ${took}`,
    );
    await member.container.serve(ports);
  }
}

/** What an operator sees with the tools at hand; of the chains those that decide about db. */
async function showKernel(): Promise<void> {
  claims.show((await host.netctl(['endpoint', 'show'])).stdout);
  claims.show(`$ ip route\n${await host.mustExec(['ip', 'route', 'show'])}`);
  const nftables = await host.exec(['nft', '-s', 'list', 'table', 'ip', 'netctl']);
  if (nftables.code === 0) showNftables(nftables.stdout);
  else await showIptables();
}

/** A table is written chain by chain; each rule shown stands behind the name of its chain. */
function showNftables(table: string): void {
  const [maps, ...chains] = table.split(/^\tchain (?=\S+ \{)/m) as [string, ...string[]];
  const rules = chains.flatMap((text) => {
    const [first, ...lines] = text.split('\n');
    const chain = first!.replace(' {', '');
    return lines.filter((line) => line.includes('comment')).map((line) => `${chain}: ${line.trim()}`);
  });
  const about = rules.filter((rule) => /^(nctl-FORWARD|nctl-to|nctl-in-db\S*):/.test(rule)).map(readable);
  claims.show(
    `$ nft list table ip netctl (${about.length} of ${rules.length} rules; none is for a single container)\n${about.join('\n')}`,
  );
  const elements = [...maps.matchAll(/^\t(?:map|set) (\S+) \{[^}]*?elements = \{\s*([^}]*?)\s*\}/gm)];
  claims.show(elements.map(([, name, list]) => `${name}: ${list!.replace(/\s+/g, ' ')}`).join('\n'));
}

async function showIptables(): Promise<void> {
  const rules = (await host.mustExec(['iptables', '-w', '-S']))
    .split('\n')
    .filter((line) => line.startsWith('-A'));
  const about = rules.filter((rule) => /^-A nctl-(FORWARD|to|in-db\S*) /.test(rule)).map(readable);
  claims.show(
    `$ iptables -S (${about.length} of ${rules.length} rules; none is for a single container)\n${about.join('\n')}`,
  );
  const members = (await host.mustExec(['ipset', 'save']))
    .split('\n')
    .filter((line) => line.startsWith('add '));
  claims.show(`$ ipset save\n${members.join('\n')}`);
}

/** The comment behind the rule, without the hash by which the agent knows its own. */
function readable(rule: string): string {
  return rule.replace(/ (?:-m comment --)?comment "netctl:\w+ ([^"]*)"(.*)/, '$2   # $1');
}

async function checkMatrix(sentence: string): Promise<void> {
  claims.heading('Who reaches whom, by real TCP connections');
  const peers: Peer[] = names.map((name) => {
    const { container, address } = members[name];
    return { name, address, connect: (targets, timeoutMs) => container.connect(targets, timeoutMs) };
  });
  peers.push({
    name: 'host',
    address: host.address,
    connect: (targets, timeoutMs) => connectFrom((command) => host.mustExec(command), targets, timeoutMs),
  });
  const matrix = await tryMatrix(peers, ports, expected);
  claims.show(matrix.text);
  await claims.claim(
    sentence,
    async () => matrix.wrong.join('\n') || undefined,
    () => `${matrix.cells} tried`,
  );
}

async function checkTag(): Promise<void> {
  claims.heading('A tag opens and closes a port');
  const reaches = async () =>
    (await members.web.container.connect([{ address: members.db.address, port: 3306 }], 300))[0] === true;
  await claims.claim(
    'db takes 3306 from whoever carries the tag db-users; web, without it, is kept out',
    async () => {
      await update('db', 'db-rule-by-tag.json');
      return !(await reaches());
    },
  );
  const within = (what: string, change: readonly string[], wanted: boolean) => {
    let took = '';
    return claims.claim(
      what,
      async () => {
        await netctl(...change);
        const started = performance.now();
        await eventually(
          `3306 is ${wanted ? 'open' : 'closed'}`,
          1000,
          async () => (await reaches()) === wanted,
        );
        took = since(started);
        return undefined;
      },
      () => `seen after ${took}`,
    );
  };
  await within(
    'the tag on profile web opens 3306 within a second',
    ['profile', 'web', 'tag', 'add', 'db-users'],
    true,
  );
  await within('the tag taken off closes it', ['profile', 'web', 'tag', 'remove', 'db-users'], false);
  await claims.claim('the first rules of db are back', () => update('db', 'db-rule.json'));
}

async function checkSpoofing(): Promise<void> {
  claims.heading('A container lies about its address');
  const { container } = members.web;
  const foreign = members.app.address;
  let rule = '';
  await claims.claim(
    `web sends as app (${foreign}), which may reach 3306: dropped, and counted`,
    async () => {
      await container.mustExec(['ip', 'address', 'add', `${foreign}/32`, 'dev', 'lo']);
      const before = await rulePackets(host);
      const [reached] = await container.connect(
        [{ address: members.db.address, port: 3306, from: foreign }],
        500,
      );
      const after = await rulePackets(host);
      await container.mustExec(['ip', 'address', 'delete', `${foreign}/32`, 'dev', 'lo']);
      rule =
        [...after].find(
          ([text, packets]) => text.includes('spoofed source') && packets > (before.get(text) ?? 0),
        )?.[0] ?? '';
      if (reached) return 'the connection was made';
      return rule === '' ? 'the rule against spoofed sources has counted no packet' : undefined;
    },
  );
  claims.show(readable(rule));
}

async function checkRestart(): Promise<void> {
  claims.heading('The agent is killed and comes back');
  const held = await members.app.container.hold({ address: members.db.address, port: 3306 });
  const stateBefore = await readState(host);
  await host.kill('SIGKILL');
  await claims.claim('without the agent, connections are made and refused as before', async () => {
    const [open, closed] = await Promise.all([
      members.app.container.connect([{ address: members.db.address, port: 3306 }], 1000),
      members.web.container.connect([{ address: members.db.address, port: 3306 }], 1000),
    ]);
    return open[0] === true && closed[0] === false;
  });
  const packetsBefore = await rulePackets(host);
  const stopMonitor = await follow(host.command(['ip', '-o', 'monitor', 'link', 'address', 'route']));
  const started = performance.now();
  await claims.must(
    'it starts again',
    () => host.start(['--config', join(conf, 'netctld.yaml')]).then(() => undefined),
    () => since(started),
  );
  await new Promise((wake) => setTimeout(wake, 500));
  const events = await stopMonitor();
  const packets = await rulePackets(host);
  const stateNow = await readState(host);
  await claims.claim(
    'it rewrites no link, address, route, rule or set',
    async () => difference(stateBefore, stateNow) || events.trim() || undefined,
  );
  await claims.claim('the counters of the rules went on from where they were', async () => {
    const lost = [...packetsBefore]
      .filter(([rule, count]) => (packets.get(rule) ?? 0) < count)
      .map(([rule]) => rule);
    return lost.length > 0 || packetsBefore.size === 0
      ? `set to zero or gone: ${lost.join('\n')}`
      : undefined;
  });
  let report = '';
  await claims.claim(
    'a connection opened before lived through it',
    async () => {
      const { echoes, longestGapMs } = await held();
      report = `${echoes} messages, longest pause ${longestGapMs} ms`;
      return longestGapMs < 1000 || report;
    },
    () => report,
  );
}

async function leave(empty: readonly string[]): Promise<void> {
  claims.heading('The containers leave by CNI DEL');
  for (const name of names) {
    const { container } = members[name];
    const started = performance.now();
    let took = '';
    await claims.claim(
      `${name} is gone`,
      async () => {
        await container.cniDel(conflist);
        took = since(started);
        const left = await container.exec(['ip', 'link', 'show', 'eth0']);
        return left.code !== 0 || 'eth0 is still there';
      },
      () => took,
    );
  }
  await claims.claim('their addresses are free again, after the cooldown of a second', async () => {
    await eventually('no address is used', 10_000, async () => {
      const { stdout } = await host.netctl(['ipam', 'show', '-o', 'json']);
      const pools = JSON.parse(stdout) as { used: number; cooldown: number }[];
      return pools.length === 1 && pools.every(({ used, cooldown }) => used + cooldown === 0);
    });
    return undefined;
  });
  await claims.claim('DEL a second time is no error', () =>
    members.web.container.cniDel(conflist).then(() => undefined),
  );
  let now: string[] = [];
  await claims.claim(
    'links, addresses, routes, chains and sets of the host are as before the first container',
    async () => {
      const same = eventually('equal', 10_000, async () => {
        now = await readState(host);
        return difference(empty, now) === '';
      });
      await same.catch(() => undefined);
      return difference(empty, now) || undefined;
    },
  );
}

async function update(profile: string, file: string): Promise<undefined> {
  const stdin = readFileSync(join(conf, 'examples', file), 'utf8');
  return succeed(
    ['profile', profile, 'rule', 'update'],
    await host.netctl(['profile', profile, 'rule', 'update'], { stdin }),
  );
}

async function netctl(...words: string[]): Promise<undefined> {
  return succeed(words, await host.netctl(words));
}

function succeed(words: readonly string[], { code, stdout, stderr }: Result): undefined {
  if (code !== 0)
    throw new Error(`netctl ${words.join(' ')}: exit code ${code}: ${(stderr || stdout).trim()}`);
}

function since(start: number): string {
  const ms = performance.now() - start;
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
