/**
 * The wire between the CNI executable and the agent (native/shim/PROTOCOL.md): one length-prefixed request, one reply.
 *
 * In: bytes from the shim or from a file of the delete queue. Out: environment, configuration text, where the namespace is open.
 * Never: a read beyond the frame, trust in a length that the frame does not have.
 */
import { NetctlError } from '../lib/errors.ts';

export const protocolVersion = 1;
/** 1 MiB of configuration and its environment. */
export const maxRequestBytes = (1 << 20) + (1 << 17);

export interface Request {
  readonly pid: number;
  /** Descriptor of the container's namespace in the process `pid`, or null. */
  readonly netnsFd: number | null;
  readonly env: ReadonlyMap<string, string>;
  readonly stdin: string;
}

/** Length of the whole frame, its prefix included, or null while not even that is known. @throws INVALID on an absurd length */
export function frameLength(bytes: Buffer): number | null {
  if (bytes.length < 4) return null;
  const length = bytes.readUInt32BE(0);
  if (length < 13 || length > maxRequestBytes) throw broken(`length ${length}`);
  return 4 + length;
}

/** @throws INVALID when the frame is not of our version or not consistent */
export function decodeRequest(frame: Buffer): Request {
  if (frameLength(frame) !== frame.length) throw broken(`${frame.length} bytes`);
  const version = frame.readUInt8(4);
  if (version !== protocolVersion) {
    throw broken(
      `protocol version ${version}, the agent speaks ${protocolVersion}: install plugin and agent of one release`,
    );
  }
  const netnsFd = frame.readInt32BE(9);
  const envLength = frame.readUInt32BE(13);
  const envEnd = 17 + envLength;
  if (envEnd > frame.length) throw broken('environment longer than the frame');
  const entries = frame.toString('utf8', 17, envEnd).split('\0').slice(0, -1);
  const env = new Map(entries.map((entry) => split(entry)));
  return {
    pid: frame.readUInt32BE(5),
    netnsFd: netnsFd < 0 ? null : netnsFd,
    env,
    stdin: frame.toString('utf8', envEnd),
  };
}

/** @param exitCode that the plugin shall end with, 0 to 255 */
export function encodeReply(exitCode: number, stdout: string): Buffer {
  const body = Buffer.from(stdout);
  const frame = Buffer.allocUnsafe(6 + body.length);
  frame.writeUInt32BE(2 + body.length, 0);
  frame.writeUInt8(protocolVersion, 4);
  frame.writeUInt8(exitCode, 5);
  body.copy(frame, 6);
  return frame;
}

function split(entry: string): [string, string] {
  const at = entry.indexOf('=');
  return at < 0 ? [entry, ''] : [entry.slice(0, at), entry.slice(at + 1)];
}

function broken(what: string): NetctlError {
  return new NetctlError('INVALID', `request frame of the CNI plugin: ${what}`);
}
