/**
 * The store of the lab's hosts: one etcd on a station of its own.
 *
 * In: the station. Out: start, kill, the cable. Never: a hurry to the disk: what it holds ends with the lab.
 */
import { etcdAddresses } from './network.ts';
import { type Station, stationDirectory } from './station.ts';

export const etcdUrl = `http://${etcdAddresses.address4}:2379`;
const peers = 'http://127.0.0.1:2380';

export class Etcd {
  readonly #station: Station;

  constructor(station: Station) {
    this.#station = station;
  }

  async start(): Promise<void> {
    if (!this.#station.isUp) await this.#station.boot();
    const program = this.#station.daemon('etcd');
    await program.start([
      ...['/usr/bin/etcd', '--data-dir', `${stationDirectory}/data`, '--unsafe-no-fsync'],
      ...['--listen-client-urls', etcdUrl, '--advertise-client-urls', etcdUrl],
      ...['--listen-peer-urls', peers, '--initial-advertise-peer-urls', peers],
      ...['--initial-cluster', `default=${peers}`, '--logger', 'zap', '--log-level', 'warn'],
      // A member alone waits a whole term before it elects itself.
      ...['--heartbeat-interval', '10', '--election-timeout', '100'],
    ]);
    await this.#station.listening(program, 2379);
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    await this.#station.daemon('etcd').kill(signal);
  }

  async cable(state: 'up' | 'down'): Promise<void> {
    await this.#station.cable(state);
  }
}
