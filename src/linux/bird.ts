/**
 * The port to BIRD, the program that speaks BGP: its configuration file, its process, its control socket.
 *
 * In: configuration text, commands of its control socket (`birdc`). Out: its replies as they come over the socket, and a word when it
 * ends. Never: a process that ends with the agent; a configuration in place that BIRD has not parsed; anything of another BIRD.
 */

export interface Bird {
  /** `2.0.12`; null where the program is not there. @throws where it cannot be asked */
  version(): Promise<string | null>;
  /** The configuration in place, which the next start reads; null for none. */
  installed(): string | null;
  /**
   * Has the program parse the text, then puts it in place of the one before, at once and whole. The running process does not know
   * of it until it is told `configure`. @throws BirdRejection with the program's words; the one before stays
   */
  install(text: string): Promise<void>;
  /**
   * Starts it with the configuration in place, in a session of its own, and resolves when its control socket answers.
   * @param recover graceful restart: what is in the kernel stays until the peers have sent everything again
   * @throws where it does not come up
   */
  start(recover: boolean): Promise<void>;
  /** A conversation with the running process; null where none answers. */
  connect(listener: BirdListener): Promise<BirdSession | null>;
  /** Process id of the running one, as it wrote it down; null for none. */
  pid(): number | null;
  /** Process ids of other BIRDs in this network namespace: two of them take each other's routes out of the kernel. */
  others(): number[];
}

export interface BirdListener {
  /** A line of its log (`echo all` asks for them), as `bgp1: State changed to up`. */
  onLog(line: string): void;
  /** The process, or the connection, has ended; not after close(). */
  onEnd(): void;
}

export interface BirdSession {
  /**
   * The reply to one command, complete, lines as BIRD sends them (`1002-name …`, ` continued`, `0000 `). Commands are answered in
   * order. @throws after 5 s without an end of the reply, or when the process ends
   */
  ask(command: string): Promise<string>;
  close(): void;
}

/** BIRD does not take a configuration. The message is its own, with the line. */
export class BirdRejection extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'BirdRejection';
  }
}
