/**
 * WEB → APP → DB, the example of conf/examples, as the programs get it. `UPDATE_GOLDEN=1` writes the files anew, for a look at
 * the difference.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import type { Address } from '../../../src/model/ip.ts';
import { profileFromJson } from '../../../src/model/profile.ts';
import { PolicyEngine } from '../../../src/policy/engine.ts';
import { Recorder } from './recorder.ts';
import { ipsetScript, iptablesScript } from './scripts.ts';

const output = new Recorder();
const engine = new PolicyEngine({ endpointToHost: 'drop' }, output);
for (const [i, name] of ['web', 'app', 'db'].entries()) {
  const json = JSON.parse(readFileSync(`conf/examples/${name}-rule.json`, 'utf8'));
  engine.onProfile(name, profileFromJson(json, name));
  engine.onEndpoint(name, {
    local: name !== 'db',
    hostInterface: `nctl${name}`,
    addresses: [`10.0.0.${i + 1}`, `fd00::${i + 1}`] as Address[],
    profiles: [name],
  });
}

const files: [file: string, text: string][] = [
  ['web-app-db.ipset', ipsetScript(output)],
  ['web-app-db.iptables', iptablesScript(output, 4)],
  ['web-app-db.ip6tables', iptablesScript(output, 6)],
];

for (const [file, text] of files) {
  test(file, () => {
    const path = `test/unit/policy/golden/${file}`;
    if (process.env['UPDATE_GOLDEN'] === '1') writeFileSync(path, text);
    assert.equal(text, readFileSync(path, 'utf8'));
  });
}

test('names fit the kernel: chains 28 characters, sets 31', () => {
  const long = 'a-name-that-is-exactly-forty-characters.';
  const longest = new Recorder();
  const other = new PolicyEngine({ endpointToHost: 'drop' }, longest);
  other.onProfile(
    long,
    profileFromJson({ id: long, inbound_rules: [{ src_tag: long }], outbound_rules: [] }, long),
  );
  const addresses = ['10.0.0.1', 'fd00::1'] as Address[];
  other.onEndpoint('x', { local: true, hostInterface: 'nctlx', addresses, profiles: [long] });
  for (const { name } of longest.chains.values()) assert(name.length <= 28 && name.startsWith('nctl-'), name);
  for (const name of longest.sets.keys()) assert(name.length <= 31 && /^nctl[46]-/.test(name), name);
});
