/** The ways to get into the kernel what an engine has told, for tests that judge policy by packets. */
import type { Recorder } from '../unit/policy/recorder.ts';
import { ipsetScript, iptablesScript } from '../unit/policy/scripts.ts';
import type { PolicyHost } from './policy-hosts.ts';

export interface PolicyLoader {
  readonly name: string;
  /** Of the programs with which foreign rules are made. */
  readonly variant: 'nft' | 'legacy';
  /** A verdict of ours is the last word; else other rules of the host come after it. */
  readonly acceptIsFinal: boolean;
  /** In place of what was loaded before. */
  load(host: PolicyHost, told: Recorder): void;
  /** @throws when the kernel, or the program, would not take it */
  check(host: PolicyHost, told: Recorder): void;
  /** A rule of a foreign hand, at the top of a chain of ours. */
  acceptUdp(host: PolicyHost, family: 4 | 6, chain: string): void;
}

const script = new URL('./nft-load.ts', import.meta.url).pathname;

export const policyLoaders: readonly PolicyLoader[] = [
  ...(['nft', 'legacy'] as const).map((variant): PolicyLoader => {
    const restore = (host: PolicyHost, told: Recorder, ...options: string[]): void => {
      host.exec(['ipset', '-exist', 'restore'], ipsetScript(told));
      for (const family of [4, 6] as const) {
        const program = `${family === 4 ? 'iptables' : 'ip6tables'}-${variant}-restore`;
        host.exec([program, '--noflush', ...options], iptablesScript(told, family));
      }
    };
    return {
      name: `iptables-${variant}`,
      variant,
      acceptIsFinal: true,
      load(host, told) {
        host.exec(['ipset', 'flush']);
        restore(host, told);
      },
      check: (host, told) => restore(host, told, '--test'),
      acceptUdp(host, family, chain) {
        const program = `${family === 4 ? 'iptables' : 'ip6tables'}-${variant}`;
        host.exec([program, '-I', chain, '-p', 'udp', '-j', 'ACCEPT']);
      },
    };
  }),
  {
    name: 'nftables',
    variant: 'nft',
    acceptIsFinal: false,
    load: (host, told) => void host.exec([process.execPath, script], json(told)),
    check: (host, told) => void host.exec([process.execPath, script, '--check'], json(told)),
    acceptUdp(host, family, chain) {
      const table = family === 4 ? 'ip' : 'ip6';
      host.exec(['nft', 'insert', 'rule', table, 'netctl', chain, 'meta', 'l4proto', 'udp', 'accept']);
    },
  },
];

function json({ sets, chains }: Recorder): string {
  return JSON.stringify({
    sets: Array.from(sets, ([name, set]) => [name, { ...set, members: [...set.members] }]),
    chains: [...chains],
  });
}
