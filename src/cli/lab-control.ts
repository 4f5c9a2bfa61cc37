/**
 * What the command line needs of a lab; lab/control.ts has it, and main hands it over.
 *
 * In: names and options as they were typed. Out: plain values. Never: how a host is made.
 */

/** What the command line needs of a lab. Failures are plain errors with a sentence for people. */
export interface LabControl {
  /** Returns when all hosts have converged; an interrupt or a failure takes down what was made. */
  up(options: LabUpOptions): Promise<LabHost[]>;
  /** Waits for the interrupt. */
  interrupted(): Promise<void>;
  /** False when there was none. */
  down(name: string): Promise<boolean>;
  status(name: string): Promise<LabHost[]>;
  /** Runs it with the streams of this process. @param host `node1`, `node1/CONTAINER`, `router`. @returns its exit code */
  exec(name: string, host: string, command: readonly string[]): Promise<number>;
  attach(name: string, host: string, container: string, options: LabAttachOptions): Promise<LabContainerItem>;
  detach(name: string, host: string, container: string): Promise<void>;
}

export interface LabUpOptions {
  readonly name: string;
  readonly nodes?: number;
  readonly reflectors?: number;
  readonly router?: string;
  readonly progress: (step: string, done: number, all: number) => void;
}

export interface LabAttachOptions {
  readonly network?: string;
  readonly profiles?: readonly string[];
  readonly ip?: string;
}

export interface LabContainerItem {
  readonly name: string;
  readonly network: string;
  readonly addresses: readonly string[];
}

export interface LabHost {
  readonly name: string;
  readonly address4: string;
  readonly address6: string;
  /** Process of its agent, as the host numbers it. */
  readonly agent: number | null;
  readonly healthy: boolean;
  /** Of BGP; null where nobody could be asked. */
  readonly sessions: { readonly established: number; readonly all: number } | null;
  readonly problems: readonly string[];
  readonly containers: readonly LabContainerItem[];
}
