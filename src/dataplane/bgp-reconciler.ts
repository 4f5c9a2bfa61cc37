/**
 * Keeps BIRD as the store wants it: installed, running, with the right configuration in force and the right sessions.
 *
 *   want(config) → text, checked by BIRD, put in place → BIRD started or found → `configure` where it has another text in force
 *                → sessions read back and compared; again, with back-off, until they agree
 *
 * In: what BGP should be, or null for none. Out: BIRD's state, in values. Never: a BIRD ended because the agent ends; a reload without
 * need; a configuration that BIRD has not accepted put in place of one that it has.
 */
import { isDeepStrictEqual } from 'node:util';
import { compareSessions } from '../bgp/compare.ts';
import type { BgpConfig } from '../bgp/config.ts';
import { renderBird, stampOf } from '../bgp/render.ts';
import { parseConfigureReply } from '../bgp/reply.ts';
import type { RunningSession } from '../bgp/running.ts';
import { parseSessions } from '../bgp/status.ts';
import { type Clock, pause, type Timer } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { type Bird, BirdRejection, type BirdSession } from '../linux/bird.ts';
import type { Routing } from '../linux/ports.ts';
import { birdProtocol } from '../linux/route-protocols.ts';
import { SessionLog } from './bird-log.ts';

/** Asks a running BIRD which configuration it has in force; the answer is `0023 "…"`. */
const stampQuestion = 'eval netctl_stamp';
const firstRetryMilliseconds = 100;
const lastRetryMilliseconds = 30_000;
/** A BIRD that ran this long did not end because of how it was started. */
const soundMilliseconds = 10_000;
const withdrawMilliseconds = 5000;
/** After these lines of its log BIRD has something to tell, step by step. */
const begins = /: State changed to up$|^Graceful restart done$/;
const awakeMilliseconds = 2000;
const wakeMilliseconds = 50;
/** Between the moments at which a process ends and at which the one at the other end hears of it. */
const bfdMarginMilliseconds = 1000;

export interface BgpParts {
  readonly bird: Bird;
  readonly host: Pick<Routing, 'routes'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What is known without asking BIRD. */
export interface BgpState {
  /** null: not wanted, or not told yet. */
  readonly wanted: BgpConfig | null;
  readonly version: string | null;
  readonly error: string | null;
  readonly inSync: boolean;
  readonly differences: readonly string[];
}

export class BgpReconciler {
  readonly #parts: BgpParts;
  #wanted: BgpConfig | null | undefined;
  #session: BirdSession | null = null;
  #log = new SessionLog([], 0);
  #version: string | null = null;
  #rejected: { readonly text: string; readonly message: string } | null = null;
  #differences: readonly string[] = [];
  #error: string | null = null;
  #isSettled = false;
  #isDue = false;
  #running: Promise<void> | null = null;
  #retry: Timer | null = null;
  #waking: Timer | null = null;
  #awakeUntil = 0;
  #failuresInARow = 0;
  #endsInARow = 0;
  #startedAt = Number.NEGATIVE_INFINITY;
  #isClosed = false;

  constructor(parts: BgpParts) {
    this.#parts = parts;
  }

  /** What BIRD should do from now on; null: it is to end, and nothing of it to stay. */
  want(config: BgpConfig | null): void {
    if (!isDeepStrictEqual(config, this.#wanted)) this.#isSettled = false;
    this.#wanted = config;
    this.#kick();
  }

  /** Looks again whether everything is as it should be. */
  resync(): void {
    this.#kick();
  }

  /** Resolves when nothing is under way; what failed is tried again later. */
  async idle(): Promise<void> {
    while (this.#running !== null) await this.#running;
  }

  get state(): BgpState {
    return {
      wanted: this.#wanted ?? null,
      version: this.#version,
      error:
        this.#rejected === null ? this.#error : `BIRD refuses the configuration: ${this.#rejected.message}`,
      inSync: this.#isSettled && this.#rejected === null,
      differences: this.#differences,
    };
  }

  /** The reply of the running BIRD; null where none runs. @throws where it does not answer */
  async ask(command: string): Promise<string | null> {
    return this.#session === null ? null : this.#session.ask(command);
  }

  /** Lets go of BIRD, which goes on. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#retry?.cancel();
    this.#waking?.cancel();
    await this.idle();
    this.#session?.close();
    this.#session = null;
  }

  #kick(): void {
    this.#retry?.cancel();
    this.#isDue = true;
    if (this.#running !== null || this.#isClosed) return;
    this.#running = this.#work().finally(() => {
      this.#running = null;
    });
  }

  async #work(): Promise<void> {
    while (this.#isDue && !this.#isClosed) {
      this.#isDue = false;
      try {
        this.#isSettled = await this.#pass();
        this.#error = null;
        if (this.#isSettled) this.#failuresInARow = 0;
        else this.#tryAgain(this.#failuresInARow++);
      } catch (error) {
        this.#isSettled = false;
        this.#error = (error as Error).message;
        this.#tryAgain(this.#failuresInARow++);
        this.#parts.logger.error({ error: this.#error }, 'BGP is not as it should be, will be tried again');
      }
    }
  }

  #tryAgain(failures: number): void {
    this.#retry?.cancel();
    const delay = Math.min(firstRetryMilliseconds * 2 ** failures, lastRetryMilliseconds);
    this.#retry = this.#parts.clock.setTimer(delay, () => this.#kick());
  }

  /** True when everything agrees. */
  async #pass(): Promise<boolean> {
    const wanted = this.#wanted;
    if (wanted === undefined) return true;
    if (wanted === null) return this.#leave();
    this.#session ??= await this.#connect();
    // Nobody to talk to: a host alone needs no BIRD.
    if (this.#session === null && wanted.sessions.length === 0) return true;
    this.#version ??= await this.#parts.bird.version();
    if (this.#version === null)
      throw new Error('BIRD is not installed: apt-get install bird2, or set bgp.birdPath');
    if (Number.parseInt(this.#version, 10) < 2)
      throw new Error(`BIRD ${this.#version} is too old: version 2 is needed (apt-get install bird2)`);
    await this.#install(wanted);
    const session = this.#session ?? (await this.#start());
    await this.#load(session);
    this.#differences = this.#rejected === null ? compareSessions(wanted, await this.#sessions(session)) : [];
    return this.#differences.length === 0;
  }

  async #install(wanted: BgpConfig): Promise<void> {
    const { bird, logger } = this.#parts;
    const text = renderBird(wanted);
    if (text === this.#rejected?.text) return;
    this.#rejected = null;
    if (text === bird.installed()) return;
    try {
      await bird.install(text);
    } catch (error) {
      if (!(error instanceof BirdRejection)) throw error;
      this.#rejected = { text, message: error.message };
      logger.error({ error: error.message }, 'BIRD refuses its configuration: the one before stays');
    }
  }

  /** After a life before this one its routes stay as they are until the peers have said theirs again. */
  async #start(): Promise<BirdSession> {
    const { bird, host, clock, logger } = this.#parts;
    if (bird.installed() === null) throw new Error('there is no configuration that BIRD takes');
    const recover = (await host.routes({ protocol: birdProtocol })).length > 0;
    this.#startedAt = clock.monotonic();
    await bird.start(recover);
    logger.info({ version: this.#version, recover }, 'BIRD started');
    const session = await this.#connect();
    if (session === null) throw new Error('BIRD ended at once');
    this.#session = session;
    return session;
  }

  async #connect(): Promise<BirdSession | null> {
    const session = await this.#parts.bird.connect({
      onLog: (line) => this.#onLog(line),
      onEnd: () => this.#onEnd(),
    });
    if (session === null) return null;
    try {
      await session.ask('echo all');
      const running = await this.#sessions(session);
      const up = running.filter(({ state }) => state === 'Established').map(({ protocol }) => protocol);
      this.#log = new SessionLog(up, this.#bfdMilliseconds);
      return session;
    } catch (error) {
      session.close();
      throw error;
    }
  }

  get #bfdMilliseconds(): number {
    const { intervalMilliseconds = 0, multiplier = 0 } = this.#wanted?.bfd ?? {};
    return intervalMilliseconds * multiplier + bfdMarginMilliseconds;
  }

  /** Has BIRD read what is in place, where it has something else in force. @throws where that does not help */
  async #load(session: BirdSession): Promise<void> {
    const { bird, logger } = this.#parts;
    const stamp = stampOf(bird.installed() ?? '');
    const isInForce = async (): Promise<boolean> =>
      stamp !== null && (await session.ask(stampQuestion)).includes(stamp);
    if (await isInForce()) return;
    const { accepted, message } = parseConfigureReply(await session.ask('configure'));
    if (!accepted) throw new Error(`BIRD does not load its configuration: ${message}`);
    if (!(await isInForce())) throw new Error('BIRD does not have the configuration that it was given');
    logger.info({ message }, 'BIRD has a new configuration');
  }

  async #sessions(session: BirdSession): Promise<RunningSession[]> {
    return parseSessions(await session.ask('show protocols all'));
  }

  /** Ends the sessions, so that peers and kernel forget the routes, and then BIRD. */
  async #leave(): Promise<boolean> {
    const { host, clock, logger } = this.#parts;
    const session = this.#session ?? (await this.#connect());
    if (session === null) return true;
    this.#session = session;
    for (const { protocol } of await this.#sessions(session)) await session.ask(`disable "${protocol}"`);
    const end = clock.monotonic() + withdrawMilliseconds;
    while ((await host.routes({ protocol: birdProtocol })).length > 0 && clock.monotonic() < end)
      await pause(clock, 50);
    await session.ask('down');
    session.close();
    this.#session = null;
    logger.info({}, 'BIRD ended: BGP is switched off');
    return true;
  }

  /** A session whose host died would keep its routes for the time of a graceful restart. */
  #onLog(line: string): void {
    if (begins.test(line)) this.#keepAwake();
    const dead = this.#log.read(line, this.#parts.clock.monotonic());
    if (dead === null) return;
    this.#parts.logger.warn({ session: dead }, 'a peer does not answer: its routes are taken back');
    this.#session?.ask(`restart "${dead}"`).catch((error: unknown) => {
      this.#parts.logger.error(
        { session: dead, error: (error as Error).message },
        'cannot restart a session',
      );
    });
  }

  /** An idle BIRD 2.0.12 begins to tell a peer or the kernel and then sleeps up to 3 s at each step; a question wakes it. */
  #keepAwake(): void {
    const { clock } = this.#parts;
    this.#awakeUntil = clock.monotonic() + awakeMilliseconds;
    if (this.#waking !== null) return;
    const ask = (): void => {
      const isOver = this.#session === null || clock.monotonic() > this.#awakeUntil;
      this.#waking = isOver ? null : clock.setTimer(wakeMilliseconds, ask);
      if (!isOver) this.#session?.ask('show status').catch(() => undefined);
    };
    ask();
  }

  /** At once, unless it ends again and again. */
  #onEnd(): void {
    this.#session = null;
    this.#isSettled = false;
    if (this.#isClosed || this.#wanted === null) return;
    this.#parts.logger.error({}, 'BIRD has ended');
    const isSound = this.#parts.clock.monotonic() - this.#startedAt >= soundMilliseconds;
    this.#endsInARow = isSound ? 0 : this.#endsInARow + 1;
    if (isSound) this.#kick();
    else this.#tryAgain(this.#endsInARow - 1);
  }
}
