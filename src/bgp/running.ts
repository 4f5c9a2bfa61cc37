/**
 * What a running BIRD says about itself, as values: what `reply.ts` and `status.ts` make of the control socket's lines.
 *
 * In: nothing. Out: types. Never: BIRD's wording beyond this and those files.
 */
import type { Address, Family } from '../model/ip.ts';

/** One line of the control socket: its code, and its text without it. */
export interface ReplyLine {
  readonly code: number;
  readonly text: string;
}

export interface BirdStatus {
  readonly version: string;
  readonly routerId: string;
  /** As BIRD prints them with `timeformat … iso`: local time of the host, `2026-11-21 15:25:09`. */
  readonly startedAt: string;
  readonly configuredAt: string;
  /** After a restart, until the peers have sent what they had. */
  readonly isRecovering: boolean;
  readonly isShuttingDown: boolean;
}

/** One BGP session as it is. */
export interface RunningSession {
  readonly protocol: string;
  /** `Established`, `Active`, `Connect`, `OpenSent`, `OpenConfirm`, `Idle`, `Passive`, `Down`. */
  readonly state: string;
  readonly since: string;
  readonly lastError: string | null;
  readonly address: Address | null;
  readonly asNumber: number | null;
  readonly localAsNumber: number | null;
  readonly channels: readonly {
    readonly family: Family;
    readonly isUp: boolean;
    readonly imported: number;
    readonly exported: number;
  }[];
}

export interface BfdSession {
  readonly address: Address;
  readonly interface: string;
  readonly isUp: boolean;
  readonly since: string;
}

export interface ConfigureResult {
  readonly accepted: boolean;
  /** What BIRD said: `Reconfigured`, or file, line and fault. */
  readonly message: string;
}
