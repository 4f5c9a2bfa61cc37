/**
 * The picture of a store for one question: nothing in the kernel, in the log or in address management follows from it.
 *
 * In: an engine. Out: a Picture that feeds it. Never: an effect.
 */
import { AddressBook } from '../ipam/address-book.ts';
import type { Logger } from '../lib/logger.ts';
import type { PolicyEngine } from '../policy/engine.ts';
import { EndpointTable } from './endpoint-table.ts';
import { Picture } from './picture.ts';

const silent: Logger = { debug() {}, info() {}, warn() {}, error() {} };

/** @param node whose endpoints are local */
export function quietPicture(node: string, engine: PolicyEngine): Picture {
  return new Picture({
    node,
    book: new AddressBook(),
    endpoints: new EndpointTable(),
    engine,
    logger: silent,
    bgp: null,
    onFamily: () => undefined,
    onOwnBlock: () => undefined,
    onOwnEndpoint: () => undefined,
    onAddressMoved: () => undefined,
  });
}
