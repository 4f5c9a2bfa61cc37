/**
 * What the ports say of special links and of what goes through a link: macvlan modes, token buckets, counters.
 *
 * In: nothing. Out: plain values for ports.ts. Never: a request (those are in ports.ts).
 */

export interface TokenBucket {
  readonly rateBitsPerSecond: number;
  /** What may go at once; below 64 KiB, large segments of TCP are taken apart first. */
  readonly burstBytes: number;
  /** What may wait; the rest is dropped. */
  readonly queueBytes: number;
}

export interface QdiscInfo {
  readonly linkIndex: number;
  /** `tbf`, `ingress`, `noqueue`, … */
  readonly kind: string;
  readonly place: 'root' | 'ingress' | 'other';
  /** Made by a `shape`, not by somebody else. */
  readonly isOurs: boolean;
  /** Of a token bucket. */
  readonly rateBitsPerSecond: number | null;
}

/** Of the link in its own namespace: `in` is what it received. */
export interface LinkCounters {
  readonly inPackets: number;
  readonly inBytes: number;
  readonly outPackets: number;
  readonly outBytes: number;
  readonly inDropped: number;
  readonly outDropped: number;
}
