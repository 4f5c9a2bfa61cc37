/**
 * The independent ledger of the chaos test: what each process was told that it has, and what it then gave up.
 *
 * In: holds after their acknowledgement, ends before they are asked for, both fsynced before the process goes on. Out: for any moment who
 * certainly has which address; what contradicts, and all that was said about such an address. Never: a look at the store under test. Times
 * are of CLOCK_MONOTONIC, which all processes of a machine share.
 */
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs';
import { type Address, familyOf } from '../../src/model/ip.ts';
import type { AddressRecord } from '../../src/model/records.ts';

export interface Hold {
  /** Endpoint, container, reservation or owner. */
  readonly by: string;
  readonly owner: string;
}

type Word = { readonly at: number; readonly address: Address } & (
  | ({ readonly kind: 'hold' } & Hold)
  /** `cools`: it was on a wire, so it may be somebody's again after the cooldown only. */
  | { readonly kind: 'end'; readonly cools: boolean }
  | { readonly kind: 'lost'; readonly what: string }
);
/** `life`: a process begins, its predecessor is dead. */
type Line = Word | { readonly kind: 'life'; readonly at: number };

const now = (): number => Number(process.hrtime.bigint() / 1000n) / 1e6;

export class Ledger {
  readonly #file: number;
  readonly #held = new Map<Address, Hold>();
  readonly #mishap: () => void;

  constructor(path: string, mishap: () => void) {
    for (const line of read(path)) this.#apply(line);
    this.#file = openSync(path, 'a');
    this.#mishap = mishap;
    this.#write({ kind: 'life', at: now() });
  }

  held(): ReadonlyMap<Address, Hold> {
    return this.#held;
  }

  hold(address: Address, by: string, { owner }: Pick<AddressRecord, 'owner'>): void {
    const text = `${owner.tenant}/${owner.app}/${owner.instance}`;
    const before = this.#held.get(address);
    if (before?.by === by && before.owner === text) return;
    this.#write({ kind: 'hold', at: now(), address, by, owner: text });
  }

  /** To be called before the address is given up: from here on somebody else may have it. */
  end(address: Address, cools: boolean): void {
    if (this.#held.has(address)) this.#write({ kind: 'end', at: now(), address, cools });
  }

  lost(address: Address, hold: Hold, record: AddressRecord | undefined): void {
    this.#write({
      kind: 'lost',
      at: now(),
      address,
      what: `${address} of ${hold.by} (${hold.owner}) is ${JSON.stringify(record)}`,
    });
  }

  #write(line: Line): void {
    this.#mishap();
    writeSync(this.#file, `${JSON.stringify(line)}\n`);
    fsyncSync(this.#file);
    this.#apply(line);
    this.#mishap();
  }

  #apply(line: Line): void {
    if (line.kind === 'hold') this.#held.set(line.address, line);
    else if (line.kind !== 'life') this.#held.delete(line.address);
  }
}

export interface Contradiction {
  readonly address: Address;
  readonly what: string;
}

export interface Judgement {
  /** None when all is well. */
  readonly contradictions: readonly Contradiction[];
  /** What each process has at the end. */
  readonly held: ReadonlyMap<Address, string>;
  /** Addresses that were given to owners whose instance begins with `fixed`: one of each family for each. */
  readonly fixed: ReadonlyMap<Address, string>;
  readonly holds: number;
  /** The most that owners of this tenant had at one moment. */
  most(tenant: string): number;
}

/** @param ledgers by name of the process @param cooldownSeconds that of all pools */
export function judge(ledgers: ReadonlyMap<string, string>, cooldownSeconds: number): Judgement {
  const lines = readAll(ledgers);
  const contradictions: Contradiction[] = [];
  const held = new Map<Address, { name: string; by: string; owner: string }>();
  const cooling = new Map<Address, { until: number; whose: string }>();
  const fixed = new Map<Address, string>();
  const families = new Map<string, Address>();
  const tenants = new Map<string, { now: number; most: number }>();
  const count = (owner: string, by: number): void => {
    const tenant = owner.split('/')[0]!;
    const counted = tenants.get(tenant) ?? { now: 0, most: 0 };
    counted.now += by;
    counted.most = Math.max(counted.most, counted.now);
    tenants.set(tenant, counted);
  };
  let holds = 0;
  for (const line of lines) {
    if (line.kind === 'life') continue;
    const { name, address, at } = line;
    const before = held.get(address);
    const contradict = (what: string): number => contradictions.push({ address, what });
    if (line.kind === 'lost') contradict(`lost at ${at}: ${name}: ${line.what}`);
    if (line.kind === 'hold') {
      holds++;
      if (before !== undefined && before.name !== name)
        contradict(
          `twice: ${address} is ${name}'s (${line.by}) at ${at}, and ${before.name}'s (${before.owner})`,
        );
      const cool = cooling.get(address);
      // What it asked to give up may not have been carried out.
      if (cool !== undefined && at < cool.until && cool.whose !== `${name} ${line.by}`)
        contradict(`${address} is given ${(cool.until - at).toFixed(3)} s before its cooldown is over`);
      const keeper = fixed.get(address);
      if (keeper !== undefined && keeper !== line.owner)
        contradict(`${address} is kept for ${keeper}, and given to ${line.owner}`);
      if (line.owner.includes('/fixed')) {
        const which = `${line.owner} ${familyOf(address)}`;
        const other = families.get(which);
        if (other !== undefined && other !== address)
          contradict(`${line.owner} has ${address}, and had ${other}`);
        families.set(which, address);
        fixed.set(address, line.owner);
      }
      cooling.delete(address);
    }
    if (before !== undefined) count(before.owner, -1);
    held.delete(address);
    if (line.kind === 'hold') {
      held.set(address, { name, by: line.by, owner: line.owner });
      count(line.owner, 1);
    } else if (line.kind === 'end' && line.cools)
      cooling.set(address, { until: at + cooldownSeconds, whose: `${name} ${before?.by}` });
  }
  return {
    contradictions,
    held: new Map([...held].map(([address, { name }]) => [address, name])),
    fixed,
    holds,
    most: (tenant) => tenants.get(tenant)?.most ?? 0,
  };
}

/** All that was said about the address, and the lives of who said it. */
export function historyOf(address: Address, ledgers: ReadonlyMap<string, string>): string[] {
  const lines = readAll(ledgers);
  const isAbout = (line: Line): boolean => line.kind !== 'life' && line.address === address;
  const speakers = new Set(lines.filter(isAbout).map(({ name }) => name));
  return lines
    .filter((line) => isAbout(line) || (line.kind === 'life' && speakers.has(line.name)))
    .map((line) => JSON.stringify(line));
}

function readAll(ledgers: ReadonlyMap<string, string>): (Line & { name: string })[] {
  return [...ledgers]
    .flatMap(([name, path]) => read(path).map((line) => ({ name, ...line })))
    .sort((a, b) => a.at - b.at);
}

/** Makes the file where there is none. */
function read(path: string): Line[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    closeSync(openSync(path, 'a'));
    return [];
  }
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line);
}
