/**
 * What this node knows of the ports of all nodes: the picture that plans are made on.
 *
 * In: records with their revisions, in any order and repeatedly. Out: who has a port, as far as is known. Never: a decision; the
 * transaction's compares decide.
 */

import { type PortProtocol, portName } from '../model/port-mapping.ts';
import type { PortHolder, PortRecord, PortReservation } from '../model/port-records.ts';
import type { Endpoint } from '../model/records.ts';
import type { Known } from './known.ts';

export type Holder = Pick<PortHolder, 'kind' | 'id'>;

export class PortBook {
  /** By node, then as in the key: `tcp-8080`. */
  readonly #ports = new Map<string, Map<string, Known<PortRecord>>>();
  /** By node and holder, then as #ports. */
  readonly #byHolder = new Map<string, Map<string, Known<PortRecord>>>();
  readonly #reservations = new Map<string, Map<string, Known<PortReservation>>>();
  /** By node: containers by the ids of their endpoints, those that publish something. */
  readonly #publishing = new Map<string, Map<string, string>>();

  onPort(node: string, port: string, known: Known<PortRecord> | null): void {
    for (const holder of this.record(node, port)?.value.holders ?? [])
      change(this.#byHolder, textOf(node, holder), port, null);
    change(this.#ports, node, port, known);
    for (const holder of known?.value.holders ?? [])
      change(this.#byHolder, textOf(node, holder), port, known);
  }

  onReservation(node: string, id: string, known: Known<PortReservation> | null): void {
    change(this.#reservations, node, id, known);
  }

  onEndpoint(node: string, id: string, endpoint: Endpoint | null): void {
    const isPublishing = endpoint !== null && (endpoint.portMappings ?? []).length > 0;
    change(this.#publishing, node, id, isPublishing ? endpoint.containerId : null);
  }

  port(node: string, protocol: PortProtocol, port: number): Known<PortRecord> | undefined {
    return this.record(node, portName(protocol, port));
  }

  /** Those of a node that have a record, as in their keys. */
  ports(node: string): Iterable<readonly [port: string, Known<PortRecord>]> {
    return this.#ports.get(node) ?? [];
  }

  /** @param port as in the key */
  record(node: string, port: string): Known<PortRecord> | undefined {
    return this.#ports.get(node)?.get(port);
  }

  /** Those whose records name the holder. */
  heldBy(node: string, holder: Holder): Iterable<readonly [port: string, Known<PortRecord>]> {
    return this.#byHolder.get(textOf(node, holder)) ?? [];
  }

  reservation(node: string, id: string): Known<PortReservation> | undefined {
    return this.#reservations.get(node)?.get(id);
  }

  *reservations(): Generator<{ node: string; id: string; known: Known<PortReservation> }> {
    for (const [node, reservations] of this.#reservations)
      for (const [id, known] of reservations) yield { node, id, known };
  }

  /** For people; null where the holder is gone, and its port free. */
  holderText(node: string, { kind, id }: Holder): string | null {
    if (kind === 'endpoint') {
      const container = this.#publishing.get(node)?.get(id);
      return container === undefined ? null : `container ${container} (endpoint ${id})`;
    }
    const reservation = this.reservation(node, id)?.value;
    if (reservation === undefined) return null;
    return `reservation ${id} of ${reservation.tenant}/${reservation.app}/${reservation.instance}`;
  }
}

const textOf = (node: string, { kind, id }: Holder): string => `${node} ${kind} ${id}`;

function change<T>(maps: Map<string, Map<string, T>>, node: string, key: string, value: T | null): void {
  const map = maps.get(node) ?? new Map<string, T>();
  if (value !== null) map.set(key, value);
  else map.delete(key);
  if (map.size > 0) maps.set(node, map);
  else maps.delete(node);
}
