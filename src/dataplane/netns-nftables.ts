/**
 * nftables of an endpoint's namespace, opened for each piece of work: an open socket would keep a namespace alive that has ended.
 *
 * In: the calls of the port. Out: the same in the namespace. Never: another namespace that has its path now; an error because the
 * namespace is gone, where nobody is left to filter.
 */
import type { Nftables, OpenNftables } from '../linux/nftables-port.ts';
import type { Linux, Netns } from '../linux/ports.ts';
import type { Endpoint } from '../model/records.ts';
import { reopen } from './reopen.ts';

export class NetnsNftables implements Nftables {
  readonly #linux: Linux;
  readonly #endpoint: Endpoint;
  /** Open while a request of the endpoint runs: its path may be the runtime's own. */
  #netns: Netns | null = null;

  constructor(linux: Linux, endpoint: Endpoint) {
    this.#linux = linux;
    this.#endpoint = endpoint;
  }

  async within<T>(netns: Netns, work: () => Promise<T>): Promise<T> {
    this.#netns = netns;
    try {
      return await work();
    } finally {
      this.#netns = null;
    }
  }

  get isThere(): boolean {
    const netns = this.#netns ?? reopen(this.#linux, this.#endpoint);
    if (netns !== this.#netns) netns?.close();
    return netns !== null;
  }

  transact(...args: Parameters<Nftables['transact']>): void {
    const nftables = this.#open();
    try {
      nftables?.transact(...args);
    } finally {
      nftables?.close();
    }
  }

  async read(...args: Parameters<Nftables['read']>): ReturnType<Nftables['read']> {
    return this.#ask((nftables) => nftables.read(...args), null);
  }

  async counts(...args: Parameters<Nftables['counts']>): ReturnType<Nftables['counts']> {
    return this.#ask((nftables) => nftables.counts(...args), new Map());
  }

  async dropsAtForward(): ReturnType<Nftables['dropsAtForward']> {
    return this.#ask((nftables) => nftables.dropsAtForward(), []);
  }

  /** Nothing is told: whoever listens keeps the namespace. */
  watch(): () => void {
    return () => undefined;
  }

  async #ask<T>(work: (nftables: Nftables) => Promise<T>, none: T): Promise<T> {
    const nftables = this.#open();
    if (nftables === null) return none;
    try {
      return await work(nftables);
    } finally {
      nftables.close();
    }
  }

  #open(): OpenNftables | null {
    if (this.#netns !== null) return this.#linux.openNftables(this.#netns);
    const netns = reopen(this.#linux, this.#endpoint);
    if (netns === null) return null;
    try {
      return this.#linux.openNftables(netns);
    } finally {
      netns.close();
    }
  }
}
