/**
 * Deletes links in the background. The kernel acknowledges a deletion only after a grace period of 16–25 ms, in which the
 * sending thread sleeps; it announces that the link is gone after half a millisecond. We answer at the announcement.
 *
 * In: names of interfaces, or their indexes. Out: promises. Never: a send on the JavaScript thread, a promise left open because a notification
 * was dropped (the acknowledgement settles it, or a look at the link).
 *
 *   remove(link) ──► waiting ──pump──► message of 1..32 links ──► another thread ──► acknowledgement ─┐
 *                       ▲                           RTM_DELLINK ──► listener ─────────────────────────┴─► settled ─┐
 *                       └────── next message, with all that has come meanwhile: one lock and one wait for them ◄───┘
 */
import {
  RTM_DELLINK,
  RTNLGRP_LINK,
  readLink,
  writeGroupDelete,
  writeLinkDelete,
  writeLinkGet,
} from '../netlink/link.ts';
import { MessageBatch, NLMSG_ERROR, readAnswer, readMessages } from '../netlink/message.ts';
import { KernelError, type LinkChoice } from '../ports.ts';
import { asKernelErrors, kernelError, RequestSocket } from './exchange.ts';
import { onlyMessages } from './message-filter.ts';
import {
  isSystemError,
  NETLINK_ROUTE,
  type NetlinkSocket,
  native,
  OWN_NETNS,
  RECEIVE_BYTES,
} from './native.ts';

const SENDS_AT_ONCE = 32;
const LINKS_PER_SEND = 32;
/** Messages whose links are not gone yet: more would only stand in line for the lock of all links. */
const SENDS_IN_LINE = 2;
/** Groups of links that are being deleted: numbers from here on, "nc" in ASCII before two bytes that count. */
const FIRST_GROUP = 0x6e630000;
const ENODEV = 19;

/** An index or a name. */
type Key = number | string;

interface Removal {
  readonly key: Key;
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
  /** A group that this link was part of could not be deleted as a whole. */
  alone: boolean;
  send: Send | null;
}

/** One message under way. */
interface Send {
  readonly removals: readonly Removal[];
  /** Number of the first message; link i of a group has this + i, the deletion comes last. */
  readonly firstSequence: number;
  answered: boolean;
  /** Removals that have not settled. */
  open: number;
}

export class LinkReaper {
  readonly #netnsFd: number;
  readonly #sender: NetlinkSocket;
  readonly #listener: NetlinkSocket;
  readonly #removals = new Map<Key, Removal>();
  #waiting: Removal[] = [];
  /** By the number of each of their messages. */
  readonly #sends = new Map<number, Send>();
  #sendsUnderWay = 0;
  #sendsInLine = 0;
  #nextSequence = 1;
  #nextGroup = 0;
  #pumpScheduled = false;

  /** @param netnsFd where the links are; stays open until the last removal has settled */
  constructor(netnsFd = OWN_NETNS) {
    this.#netnsFd = netnsFd;
    this.#sender = asKernelErrors('open a routing socket', () =>
      native.openNetlink(netnsFd, NETLINK_ROUTE, RECEIVE_BYTES),
    );
    this.#listener = asKernelErrors('watch links', () => {
      const listener = native.openNetlink(netnsFd, NETLINK_ROUTE, RECEIVE_BYTES);
      native.attachFilter(listener, onlyMessages(RTM_DELLINK));
      native.joinGroup(listener, RTNLGRP_LINK);
      return listener;
    });
    native.onReadable(this.#listener, (bytes) => this.#onNotification(bytes));
    native.unref(this.#listener);
  }

  get isBusy(): boolean {
    return this.#removals.size > 0;
  }

  /** Resolves when the link is gone or was not there. @throws KernelError when the kernel will not delete it */
  async remove(link: number | { readonly name: string }): Promise<void> {
    const key = typeof link === 'number' ? link : link.name;
    const known = this.#removals.get(key);
    if (known !== undefined) return known.promise;
    // What is told already is about an earlier link: answered by it, this deletion would come after the answer, and take a link made anew.
    this.#hear();
    // Now, so that a wrong one does not end a message with others.
    writeLinkDelete(new MessageBatch(1), chosen(key));
    const removal = { key, ...Promise.withResolvers<void>(), alone: false, send: null };
    this.#removals.set(key, removal);
    this.#waiting.push(removal);
    this.#schedulePump();
    return removal.promise;
  }

  /** Removals under way still settle: when they are sent, we look whether the links are there. */
  close(): void {
    native.close(this.#listener);
    native.close(this.#sender);
  }

  /** At the end of this turn of the event loop's callbacks: what was asked for in one go can share a message. */
  #schedulePump(): void {
    if (this.#pumpScheduled) return;
    this.#pumpScheduled = true;
    queueMicrotask(() => {
      this.#pumpScheduled = false;
      this.#pump();
    });
  }

  #pump(): void {
    while (
      this.#waiting.length > 0 &&
      this.#sendsUnderWay < SENDS_AT_ONCE &&
      this.#sendsInLine < SENDS_IN_LINE
    ) {
      const share = this.#waiting[0]!.alone ? 1 : LINKS_PER_SEND;
      const alone = this.#waiting.slice(1, share).findIndex((removal) => removal.alone);
      void this.#send(this.#waiting.splice(0, alone < 0 ? share : alone + 1));
    }
  }

  async #send(removals: Removal[]): Promise<void> {
    const batch = new MessageBatch(this.#nextSequence);
    const links = removals.map(({ key }) => chosen(key));
    if (links.length === 1) writeLinkDelete(batch, links[0]!);
    else writeGroupDelete(batch, links, this.#group());
    this.#nextSequence = (this.#nextSequence + batch.count) % 2 ** 31 || 1;
    const send: Send = {
      removals,
      firstSequence: batch.firstSequence,
      answered: false,
      open: removals.length,
    };
    for (const removal of removals) removal.send = send;
    this.#sendsInLine++;
    for (let i = 0; i < batch.count; i++) this.#sends.set(batch.firstSequence + i, send);
    this.#sendsUnderWay++;
    try {
      await native.sendInBackground(this.#sender, batch.finish());
      this.#readAnswers();
      if (!send.answered) this.#lookAtLinks(send);
    } catch (error) {
      const failure = isSystemError(error) ? new KernelError('delete links', error.code, null) : error;
      for (const removal of removals) this.#settle(removal, failure);
    }
    for (let i = 0; i < batch.count; i++) this.#sends.delete(batch.firstSequence + i);
    this.#sendsUnderWay--;
    this.#pump();
  }

  #group(): number {
    this.#nextGroup = (this.#nextGroup + 1) % 0x10000;
    return FIRST_GROUP + this.#nextGroup;
  }

  /** Takes all notifications that are there. */
  #hear(): void {
    for (;;) {
      const bytes = received(this.#listener);
      if (bytes === 'nothing') return;
      this.#onNotification(bytes);
    }
  }

  #onNotification(bytes: Buffer | null): void {
    if (bytes === null) return; // some were dropped: the acknowledgements will tell
    for (const message of readMessages(bytes)) {
      const link = message.type === RTM_DELLINK ? readLink(message) : null;
      if (link === null) continue;
      for (const key of [link.index, link.name]) {
        const removal = this.#removals.get(key);
        if (removal !== undefined) this.#settle(removal);
      }
    }
  }

  /** The kernel queues the answers before a send returns, so those of a finished send are there. */
  #readAnswers(): void {
    for (;;) {
      const bytes = received(this.#sender);
      if (bytes === 'nothing') return;
      if (bytes === null) continue; // answers were dropped: the links will tell
      for (const message of readMessages(bytes)) {
        const send = this.#sends.get(message.sequence);
        if (send === undefined || message.type !== NLMSG_ERROR) continue;
        this.#onAnswer(send, message.sequence - send.firstSequence, readAnswer(message));
      }
    }
  }

  #onAnswer(send: Send, number: number, answer: { errno: number; text: string | null }): void {
    const { removals } = send;
    const gone = answer.errno === 0 || answer.errno === ENODEV;
    if (removals.length > 1 && number < removals.length) {
      // This link could not join the group: it is gone already, or the kernel refuses.
      const removal = removals[number]!;
      this.#settle(removal, gone ? undefined : kernelError(`delete link ${removal.key}`, answer));
      return;
    }
    send.answered = true;
    for (const removal of removals) {
      if (gone) this.#settle(removal);
      else if (removals.length === 1)
        this.#settle(removal, kernelError(`delete link ${removal.key}`, answer));
      else if (this.#removals.get(removal.key) === removal) {
        removal.alone = true;
        this.#leave(removal);
        this.#waiting.push(removal);
      }
    }
  }

  /** The acknowledgement itself was lost, or we were closed after the announcement. */
  #lookAtLinks(send: Send): void {
    const open = send.removals.filter((removal) => this.#removals.get(removal.key) === removal);
    if (open.length === 0) return;
    const socket = new RequestSocket(this.#netnsFd, NETLINK_ROUTE);
    try {
      for (const removal of open) {
        const { failures } = socket.exchange([chosen(removal.key)], writeLinkGet);
        const gone = failures[0]?.errno === ENODEV;
        this.#settle(
          removal,
          gone ? undefined : new KernelError(`delete link ${removal.key}`, 'ENOBUFS', 'the answer was lost'),
        );
      }
    } finally {
      socket.close();
    }
  }

  #settle(removal: Removal, error?: unknown): void {
    if (this.#removals.get(removal.key) !== removal) return;
    this.#removals.delete(removal.key);
    if (removal.send === null) this.#waiting = this.#waiting.filter((other) => other !== removal);
    this.#leave(removal);
    if (error === undefined) removal.resolve();
    else removal.reject(error);
  }

  /** It has nothing to wait for in its message any more. */
  #leave(removal: Removal): void {
    const { send } = removal;
    removal.send = null;
    if (send === null || --send.open > 0) return;
    this.#sendsInLine--;
    if (this.#waiting.length > 0) this.#schedulePump();
  }
}

/** What waits at the socket; null where some was dropped. Of a closed one, nothing. */
function received(socket: NetlinkSocket): Buffer | null | 'nothing' {
  try {
    return native.receive(socket) ?? 'nothing';
  } catch (error) {
    return isSystemError(error) && error.code === 'ENOBUFS' ? null : 'nothing';
  }
}

function chosen(key: Key): LinkChoice {
  return typeof key === 'number' ? { index: key } : { name: key };
}
