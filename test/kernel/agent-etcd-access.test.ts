/** An agent whose etcd asks for a certificate and for user and password, and lets it at its own prefix only. */

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { eventually } from '../../lab/run.ts';
import { startEtcd } from './etcd-harness.ts';
import { conflist, EtcdHosts } from './etcd-hosts.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';
import { Pki } from './pki.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

test('mutual TLS, user and password: two agents work and see each other live; a wrong password is named', async () => {
  const pki = await Pki.create();
  let lab: EtcdHosts | null = null;
  try {
    const server = await pki.issue('etcd', ['IP:127.0.0.1', 'IP:198.18.0.254', 'IP:198.18.1.254']);
    const client = await pki.issue('agent', []);
    const [user, wrong] = ['password', 'wrong'].map((name) => join(pki.directory, name)) as [string, string];
    writeFileSync(user, 'secret\n');
    writeFileSync(wrong, 'guess\n');
    const etcd = await startEtcd(1, {
      scheme: 'https',
      flags: [
        ...['--cert-file', server.cert, '--key-file', server.key],
        ...['--client-cert-auth', '--trusted-ca-file', client.ca, '--auth-token-ttl', '5'],
      ],
      ctl: ['--cert', client.cert, '--key', client.key, '--cacert', client.ca],
    });
    await etcd.ctl('user', 'add', 'root:root');
    await etcd.ctl('user', 'grant-role', 'root', 'root');
    await etcd.ctl('role', 'add', 'netctl');
    await etcd.ctl('role', 'grant-permission', 'netctl', '--prefix=true', 'readwrite', '/netctl/v1/');
    await etcd.ctl('user', 'add', 'netctl:secret');
    await etcd.ctl('user', 'grant-role', 'netctl', 'netctl');
    await etcd.ctl('auth', 'enable');
    const tls = ['--etcd-ca', client.ca, '--etcd-cert', client.cert, '--etcd-key', client.key];
    const login = (password: string) => ['--etcd-username', 'netctl', '--etcd-password-file', password];
    lab = await EtcdHosts.create('ta', 2, [...tls, ...login(user)], etcd);
    const [one, two] = lab.hosts as [EtcdHosts['hosts'][0], EtcdHosts['hosts'][0]];
    await lab.ok(one, 'pool', 'add', '10.71.0.0/16', '--cooldown', '0');
    const { container, address } = await lab.join(one, 'a');
    // Longer than a token lives, so that lease, watch and outbox have logged in anew.
    await eventually('the other sees it live, and its endpoint', 20_000, async () => {
      const nodes = await lab!.json<{ name: string; alive: boolean }[]>(two, 'node', 'show');
      const endpoints = await lab!.ok(two, 'endpoint', 'show', '--node', one.name);
      return nodes.length === 2 && nodes.every(({ alive }) => alive) && endpoints.includes(address);
    });
    await new Promise((resolve) => setTimeout(resolve, 11_000));
    await container.cniDel(conflist);
    await lab.join(two, 'b');
    for (const host of [one, two]) await lab.healthy(host);
    assert.doesNotMatch(one.log(), /secret/);

    await two.kill('SIGTERM');
    await lab.start(two, login(wrong));
    await eventually('the status names the reason', 20_000, async () => {
      const { code, stdout } = await two.netctl(['node', 'status']);
      return code === 4 && /login of user netctl failed/.test(stdout) && !/guess/.test(stdout);
    });
    await lab.join(two, 'c');
  } finally {
    await lab?.close();
    await pki.dispose();
  }
});
