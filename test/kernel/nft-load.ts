/**
 * Run inside a network namespace: loads what an engine has told (a Recorder, as JSON on standard input) over netlink, in place of what
 * is there of ours; with `--check` into another table, which is removed in the same transaction.
 */
import { readFileSync } from 'node:fs';
import type { NftRequest } from '../../src/linux/nftables-port.ts';
import { openNftables } from '../../src/linux/real/nftables.ts';
import { families } from '../../src/model/ip.ts';
import { nftRequests } from '../unit/policy/nft-script.ts';
import { Recorder } from '../unit/policy/recorder.ts';

const told = JSON.parse(readFileSync(0, 'utf8')) as RecorderJson;
const recorder = new Recorder();
for (const [name, set] of told.sets) recorder.sets.set(name, { ...set, members: new Set(set.members) });
for (const [name, chain] of told.chains) recorder.chains.set(name, chain);
const nftables = openNftables(-1);
const requests = nftRequests(recorder);
if (process.argv.includes('--check')) {
  nftables.transact([...requests, ...eachTable('table-delete')].map((each) => ({ ...each, table: 'check' })));
} else {
  nftables.transact([...eachTable('table-add'), ...eachTable('table-delete'), ...requests]);
}
nftables.close();

interface RecorderJson {
  readonly sets: [string, Parameters<Recorder['sets']['set']>[1] & { members: string[] }][];
  readonly chains: [string, Parameters<Recorder['chains']['set']>[1]][];
}

function eachTable(kind: 'table-add' | 'table-delete'): NftRequest[] {
  return families.map((family) => ({ family, table: 'netctl', kind }));
}
