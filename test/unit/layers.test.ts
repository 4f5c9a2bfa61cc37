/**
 * Who may import whom (DESIGN.md, "Folders"), and the other rules that a reader relies on without looking.
 *
 * In: the text of every file under src/. Out: one sentence per breach, with the reason for the rule. Never: a pass because
 * nothing was read (the files are counted) or because nothing would be found (seeded breaches are).
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { test } from 'node:test';

interface Layer {
  readonly may: readonly string[];
  readonly because: string;
}

const values = ['model', 'lib'];
const ports = ['store', 'linux'];
const pure =
  'it is a pure function of values: only that makes it testable without a kernel, and it is the part that can be wrong';

/** An area may import itself, what `may` lists, and nothing else of src/. */
const layers: Readonly<Record<string, Layer>> = {
  lib: { may: [], because: 'a domain word in lib becomes a dependency of everybody' },
  model: {
    may: ['lib'],
    because: 'the vocabulary must load in a test within a millisecond and knows nobody who uses it',
  },
  store: { may: values, because: 'the port does not know why a value is wanted' },
  linux: {
    may: values,
    because: 'the port speaks the kernel’s language and does not know why something is asked',
  },
  'linux/netlink': {
    may: ['linux', ...values],
    because: 'codecs turn requests into bytes, they decide nothing',
  },
  'linux/real': {
    may: ['linux', 'linux/netlink', ...values],
    because: 'an adapter serves its port and nothing else',
  },
  // The fake refuses what the codecs refuse, by the same functions.
  'linux/fake': {
    may: ['linux', 'linux/netlink', ...values],
    because: 'an adapter serves its port and nothing else',
  },
  'store/adapter': { may: ['store', ...values], because: 'an adapter serves its port and nothing else' },
  ipam: {
    may: ['store', ...values],
    because: 'compare-and-swap is its subject; it needs no Linux and no neighbour',
  },
  policy: { may: ['linux', ...values], because: pure },
  bgp: { may: ['linux', ...values], because: pure },
  veth: { may: ['linux', ...values], because: pure },
  macvlan: { may: ['linux', ...values], because: pure },
  dataplane: {
    may: ['policy', 'bgp', 'veth', 'macvlan', 'linux', ...values],
    because: 'it acts on what it is told and never looks things up in the store',
  },
  agent: {
    may: ['dataplane', 'ipam', 'policy', 'bgp', 'veth', 'macvlan', ...ports, ...values],
    because: 'the agent does not know its fronts: main hands it to them',
  },
  cni: {
    may: values,
    because: 'a protocol front translates and calls the Attacher; how a container is wired is the agent’s',
  },
  api: {
    may: ['ipam', 'store', ...values],
    because: 'run-time facts are handed in by main; the API never touches the kernel',
  },
  docker: {
    may: ['ipam', ...values],
    because: 'a protocol front translates and calls the Attacher; how a container is wired is the agent’s',
  },
  cli: {
    may: ['api/schemas', ...values],
    because: 'the command line is a client: what it loads is paid for at every start',
  },
};

/** These end with this import, whoever does it. `only` says who may, as the beginning of a path under src/. */
const restricted: readonly { what: RegExp; only: RegExp; because: string }[] = [
  {
    what: /^node:child_process$/,
    only: /^lib\/process\.ts$/,
    because: 'one place runs programs, with deadlines and without a shell',
  },
  { what: /^node:sqlite$/, only: /^store\/sqlite[^/]*$/, because: 'the store is reached through its port' },
  {
    what: /^node:(fs|net|http|https|dgram|tls|worker_threads|dns)(\/|$)/,
    only: /^(?!policy|bgp|veth|macvlan)/,
    because: pure,
  },
];

const textRules: readonly { what: RegExp; only: RegExp; because: string }[] = [
  {
    what: /\bprocess\.env\b/,
    only: /^(main\/|agent\/config\.ts$)/,
    because: 'the environment is read once, in the configuration',
  },
  { what: /\bNATIVE_ADDON_URL\b/, only: /^linux\/real\//, because: 'native code is the real adapter’s own' },
  {
    what: /^(export )?(let|var) /m,
    only: /^$/,
    because: 'module state is shared by everything that runs in the process',
  },
  {
    what: /^(export )?const [^=]+= (new (Map|Set|WeakMap|WeakSet)(<.*>)?\(\)|\[\]|\{\});$/m,
    only: /^$/,
    because: 'an empty collection at module level is there to be filled: that is module state',
  },
];

test('src/ keeps the import rule', () => {
  const { files, breaches } = inspect(resolve(import.meta.dirname, '../../src'));
  assert.ok(files > 30, `only ${files} files were read`);
  assert.deepEqual(breaches, []);
});

test('a breach of each kind is found', () => {
  const root = mkdtempSync(join(tmpdir(), 'layers-'));
  const seeds: readonly (readonly [path: string, text: string, found: RegExp])[] = [
    ['model/a.ts', "import { b } from '../ipam/b.ts';", /model\/a\.ts imports ipam\/b\.ts/],
    ['policy/c.ts', "import {\n  d,\n} from '../veth/d.ts';", /policy\/c\.ts imports veth\/d\.ts/],
    ['policy/e.ts', "import { readFileSync } from 'node:fs';", /policy\/e\.ts imports node:fs/],
    ['agent/f.ts', "export type { X } from '../linux/real/x.ts';", /agent\/f\.ts imports linux\/real\/x\.ts/],
    ['agent/g.ts', "const s = await import('../store/sqlite.ts');", /agent\/g\.ts imports store\/sqlite\.ts/],
    ['cli/h.ts', "import { s } from '../api/server.ts';", /cli\/h\.ts imports api\/server\.ts/],
    ['api/i.ts', "import { spawn } from 'node:child_process';", /api\/i\.ts imports node:child_process/],
    ['ipam/j.ts', 'const home = process.env.HOME;', /ipam\/j\.ts has process\.env/],
    ['lib/k.ts', 'export let count = 0;', /lib\/k\.ts has export let/],
    ['lib/l.ts', 'const seen = new Map<string, number>();', /lib\/l\.ts has const seen/],
    ['lib/m.ts', "import './n.ts';", /cycle: lib\/m\.ts → lib\/n\.ts → lib\/m\.ts/],
    ['lib/n.ts', "import type { M } from './m.ts';", /cycle: /],
    ['veth/index.ts', '', /veth\/index\.ts is a barrel/],
    ['other/o.ts', '', /other\/o\.ts is in no area/],
    ['lib/long.ts', '\n'.repeat(401), /lib\/long\.ts has 40\d lines/],
  ];
  try {
    for (const [path, text] of seeds) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
    const { files, breaches } = inspect(root);
    assert.equal(files, seeds.length);
    for (const [path, , found] of seeds) {
      assert.ok(
        breaches.some((breach) => found.test(breach)),
        `${path}: no ${found} in\n${breaches.join('\n')}`,
      );
    }
    assert.equal(breaches.length, seeds.length - 1, breaches.join('\n'));
  } finally {
    rmSync(root, { recursive: true });
  }
});

function inspect(root: string): { files: number; breaches: string[] } {
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((path) =>
    path.endsWith('.ts'),
  );
  const texts = new Map(files.sort().map((path) => [path, readFileSync(join(root, path), 'utf8')]));
  const imports = new Map([...texts].map(([path, text]) => [path, importsOf(path, text)]));
  const breaches = [
    ...[...texts].flatMap(([path, text]) => textBreaches(path, text)),
    ...[...imports].flatMap(([path, targets]) => targets.flatMap((target) => importBreaches(path, target))),
    ...cycles(imports),
  ];
  return { files: files.length, breaches };
}

/** What a file imports, types included: paths under src/, or names of packages. */
function importsOf(path: string, text: string): string[] {
  const statements =
    /(?:^|\n)\s*(?:import|export)\b(?:[^;'"()]*?\bfrom)?\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]\s*\)/g;
  return [...text.matchAll(statements)].map(([, statement, call]) => {
    const target = statement ?? call ?? '';
    return target.startsWith('.') ? join(dirname(path), target) : target;
  });
}

function areaOf(path: string): string {
  if (/^store\/(sqlite|memory|etcd)[^/]*$/.test(path)) return 'store/adapter';
  if (/^api\/([\w-]+-)?schemas\.ts$/.test(path)) return 'api/schemas';
  return /^linux\/(netlink|real|fake)\//.exec(path)?.[0].slice(0, -1) ?? path.split('/')[0] ?? '';
}

function importBreaches(path: string, target: string): string[] {
  const reasons = restricted
    .filter(({ what, only }) => what.test(target) && !only.test(path))
    .map(({ because }) => because);
  if (target.endsWith('.ts') && areaOf(path) !== 'main') {
    const from = areaOf(path) === 'api/schemas' ? 'api' : areaOf(path);
    const to = areaOf(target);
    const layer = layers[from];
    const own = from === to || (from === 'api' && to === 'api/schemas');
    if (layer !== undefined && !own && !layer.may.includes(to)) reasons.push(layer.because);
  }
  return reasons.map((because) => `${path} imports ${target}: ${because}`);
}

function textBreaches(path: string, text: string): string[] {
  const breaches = textRules.flatMap(({ what, only, because }) => {
    const found = only.test(path) ? null : what.exec(text);
    return found === null ? [] : [`${path} has ${found[0]}: ${because}`];
  });
  const lines = text.split('\n').length;
  const area = areaOf(path);
  if (/(^|\/)index\.ts$/.test(path)) breaches.push(`${path} is a barrel: it hides who depends on what`);
  if (lines > 401) breaches.push(`${path} has ${lines} lines: over 400 is a reason to split`);
  if (area !== 'main' && area !== 'api/schemas' && !(area in layers))
    breaches.push(`${path} is in no area that the table knows`);
  return breaches;
}

/** Each cycle once, at the import that closes it. */
function cycles(imports: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (path: string, trail: readonly string[]): void => {
    if (trail.includes(path)) {
      found.push(`cycle: ${[...trail.slice(trail.indexOf(path)), path].join(' → ')}`);
      return;
    }
    if (done.has(path)) return;
    for (const target of imports.get(path) ?? []) visit(target, [...trail, path]);
    done.add(path);
  };
  for (const path of imports.keys()) visit(path, []);
  return found;
}
