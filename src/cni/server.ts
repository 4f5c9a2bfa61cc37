/**
 * The CNI socket: takes one framed request per connection, calls the attacher, answers.
 *
 * In: connections from the CNI executable (root only). Out: one reply each. Never: an ADD that stays when its caller was gone
 * before the answer could be written, an answer without JSON, a request run for a peer that is not root.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { asNetctlError, NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { Attacher } from '../model/attachment.ts';
import { mayCheck, relay, release } from './delegate.ts';
import { CniError, cniErrorText } from './errors.ts';
import { decodeRequest, encodeReply, frameLength, type Request } from './frame.ts';
import { type CniCall, parseCall } from './request.ts';
import { addAnswer } from './result.ts';
import { Together } from './together.ts';

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
}

export interface CniServerOptions {
  readonly attacher: Attacher;
  readonly logger: Logger;
  /** Who is at the other end (SO_PEERCRED). */
  peerOf(socket: Socket): PeerCredentials;
}

export function createCniServer(options: CniServerOptions): Server {
  const together = new Together();
  return createServer((socket) => {
    together.arrive();
    // At the answer, before the other end has heard of it: who comes next is alone.
    let isOver = false;
    const end = (): void => {
      if (!isOver) together.leave();
      isOver = true;
    };
    socket.on('error', (error) => options.logger.debug({ error: error.message }, 'CNI connection broke'));
    socket.on('close', end);
    readFrame(socket, (frame) => together.begin(() => void answer(frame, socket, options).finally(end)));
  });
}

/** Runs what a call asks for; what it resolves to goes to the plugin's standard output. @param isGone whether nobody waits for it any more */
export async function runCall(call: CniCall, attacher: Attacher, isGone = () => false): Promise<string> {
  switch (call.command) {
    case 'ADD':
      return add(call, attacher, isGone);
    case 'DEL': {
      const { id, queuedAt, delegate } = call;
      await attacher.detach(
        id,
        queuedAt ?? undefined,
        delegate === null ? undefined : () => release(delegate),
      );
      return '';
    }
    case 'CHECK':
      await attacher.check(call.id, call.expected);
      if (call.delegate !== null && (await mayCheck(call.delegate.delegate)))
        await relay('CHECK', call.delegate.delegate, call.delegate);
      return '';
    case 'GC':
      await collect(call, attacher);
      return '';
    case 'STATUS': {
      const trouble = attacher.notReady(call.wanted);
      if (trouble !== null) throw new CniError(trouble.existingAffected ? 51 : 50, trouble.reason);
      if (call.delegate !== null)
        await relay('STATUS', call.delegate, null).catch((error: unknown) => {
          throw new CniError(50, asNetctlError(error).message);
        });
      return '';
    }
  }
}

/** A new attachment that the version has no words for, or that nobody hears of, does not stay. */
async function add(
  call: CniCall & { command: 'ADD' },
  attacher: Attacher,
  isGone: () => boolean,
): Promise<string> {
  let text = '';
  await attacher.attach(call.attach, (attachment) => {
    if (isGone()) throw new NetctlError('TRY_AGAIN', 'the caller of ADD went away before the answer');
    text = JSON.stringify(addAnswer(attachment, call.cniVersion, call.answer));
  });
  return text;
}

/** What one part cannot collect keeps no other from it. @throws with the words of all */
async function collect(call: CniCall & { command: 'GC' }, attacher: Attacher): Promise<void> {
  const parts = [
    call.valid === null ? null : attacher.collect(call.network, call.valid),
    call.delegate === null ? null : relay('GC', call.delegate, null),
  ];
  const failed = (await Promise.allSettled(parts)).flatMap((part) =>
    part.status === 'rejected' ? [asNetctlError(part.reason)] : [],
  );
  if (failed.length > 0)
    throw new NetctlError(failed[0]!.code, failed.map(({ message }) => message).join('; '));
}

async function answer(frame: Buffer, socket: Socket, options: CniServerOptions): Promise<void> {
  let request: Request | null = null;
  let call: CniCall | null = null;
  try {
    const peer = options.peerOf(socket);
    if (peer.uid !== 0)
      throw new NetctlError('INVALID', `only root may use the CNI socket, not uid ${peer.uid}`);
    // The kernel's word for the pid, in our pid namespace: the one in the frame is the shim's own view.
    request = { ...decodeRequest(frame), pid: peer.pid };
    call = parseCall(request);
    socket.end(encodeReply(0, await runCall(call, options.attacher, () => isGone(socket))));
  } catch (error) {
    const text = cniErrorText(error, call?.cniVersion ?? versionIn(request));
    options.logger.warn(
      {
        command: request?.env.get('CNI_COMMAND'),
        containerId: request?.env.get('CNI_CONTAINERID'),
        error: text,
      },
      'CNI call failed',
    );
    if (!socket.destroyed) socket.end(encodeReply(1, text));
  }
}

/** The shim keeps both directions open until it has its answer. */
function isGone(socket: Socket): boolean {
  return socket.destroyed || socket.readableEnded;
}

/** The version to answer in when the rest of the configuration was refused. */
function versionIn(request: Request | null): string {
  return /"cniVersion"\s*:\s*"(\d+\.\d+\.\d+)"/.exec(request?.stdin ?? '')?.[1] ?? '1.0.0';
}

/** Collects one frame; whatever follows it is ignored, whatever breaks off is dropped. */
function readFrame(socket: Socket, onFrame: (frame: Buffer) => void): void {
  let bytes: Buffer = Buffer.alloc(0);
  const onData = (chunk: Buffer): void => {
    bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk]);
    let length: number | null;
    try {
      length = frameLength(bytes);
    } catch (error) {
      socket.off('data', onData);
      socket.end(encodeReply(1, cniErrorText(error)));
      return;
    }
    if (length === null || bytes.length < length) return;
    socket.off('data', onData);
    // Keeps reading, so that the end of the connection is noticed.
    socket.resume();
    onFrame(bytes.subarray(0, length));
  };
  socket.on('data', onData);
}
