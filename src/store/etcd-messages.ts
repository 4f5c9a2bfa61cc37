/**
 * etcd's v3 API, as much of it as the adapter uses: messages with their field numbers, and the remote procedures.
 *
 * In: nothing. Out: schemas for etcd-protobuf.ts. Never: a field number that differs from etcd's rpc.proto and kv.proto (etcd 3.4;
 * test/kernel/etcd-codec.test.ts compares with the published files).
 */
import type { Message, Schema } from './etcd-protobuf.ts';

const keyValue = {
  key: { number: 1, type: 'bytes' },
  createRevision: { number: 2, type: 'number' },
  modRevision: { number: 3, type: 'number' },
  value: { number: 5, type: 'bytes' },
} as const satisfies Schema;

const event = {
  /** See `eventType`. */
  type: { number: 1, type: 'number' },
  kv: { number: 2, message: keyValue },
} as const satisfies Schema;

const header = {
  clusterId: { number: 1, type: 'id' },
  revision: { number: 3, type: 'number' },
  raftTerm: { number: 4, type: 'id' },
} as const satisfies Schema;

const rangeRequest = {
  key: { number: 1, type: 'bytes' },
  rangeEnd: { number: 2, type: 'bytes' },
  limit: { number: 3, type: 'number' },
  revision: { number: 4, type: 'number' },
  keysOnly: { number: 8, type: 'bool' },
  minModRevision: { number: 10, type: 'number' },
} as const satisfies Schema;

const rangeResponse = {
  header: { number: 1, message: header },
  kvs: { number: 2, message: keyValue, repeated: true },
  more: { number: 3, type: 'bool' },
} as const satisfies Schema;

const putRequest = {
  key: { number: 1, type: 'bytes' },
  value: { number: 2, type: 'bytes' },
  lease: { number: 3, type: 'number' },
} as const satisfies Schema;

const deleteRangeRequest = { key: { number: 1, type: 'bytes' } } as const satisfies Schema;

const requestOperation = {
  range: { number: 1, message: rangeRequest },
  put: { number: 2, message: putRequest },
  deleteRange: { number: 3, message: deleteRangeRequest },
} as const satisfies Schema;

const compare = {
  /** See `compareResult`. */
  result: { number: 1, type: 'number' },
  /** See `compareTarget`. */
  target: { number: 2, type: 'number' },
  key: { number: 3, type: 'bytes' },
  createRevision: { number: 5, type: 'number' },
  modRevision: { number: 6, type: 'number' },
  rangeEnd: { number: 64, type: 'bytes' },
} as const satisfies Schema;

const txnRequest = {
  compare: { number: 1, message: compare, repeated: true },
  success: { number: 2, message: requestOperation, repeated: true },
  failure: { number: 3, message: requestOperation, repeated: true },
} as const satisfies Schema;

const txnResponse = {
  header: { number: 1, message: header },
  succeeded: { number: 2, type: 'bool' },
  responses: {
    number: 3,
    message: { range: { number: 1, message: rangeResponse } },
    repeated: true,
  },
} as const satisfies Schema;

const watchRequest = {
  create: {
    number: 1,
    message: {
      key: { number: 1, type: 'bytes' },
      rangeEnd: { number: 2, type: 'bytes' },
      startRevision: { number: 3, type: 'number' },
      progressNotify: { number: 4, type: 'bool' },
      fragment: { number: 8, type: 'bool' },
    },
  },
  progress: { number: 3, message: {} },
} as const satisfies Schema;

const watchResponse = {
  header: { number: 1, message: header },
  /** -1 in the answer to a progress request. */
  watchId: { number: 2, type: 'number' },
  created: { number: 3, type: 'bool' },
  canceled: { number: 4, type: 'bool' },
  compactRevision: { number: 5, type: 'number' },
  cancelReason: { number: 6, type: 'string' },
  fragment: { number: 7, type: 'bool' },
  events: { number: 11, message: event, repeated: true },
} as const satisfies Schema;

const authenticateRequest = {
  name: { number: 1, type: 'string' },
  password: { number: 2, type: 'string' },
} as const satisfies Schema;

const authenticateResponse = {
  header: { number: 1, message: header },
  token: { number: 2, type: 'string' },
} as const satisfies Schema;

const lease = { id: { number: 1, type: 'number' } } as const satisfies Schema;

const leaseGrantRequest = {
  ttl: { number: 1, type: 'number' },
  /** Chosen by the caller. */
  id: { number: 2, type: 'number' },
} as const satisfies Schema;

const leaseResponse = {
  header: { number: 1, message: header },
  id: { number: 2, type: 'number' },
  /** Of a renewal: 0 for a lease that is gone. */
  ttl: { number: 3, type: 'number' },
} as const satisfies Schema;

export const eventType = { put: 0, delete: 1 } as const;
export const compareResult = { equal: 0, less: 2, notEqual: 3 } as const;
export const compareTarget = { create: 1, modified: 2 } as const;

export interface Method<Q extends Schema = Schema, R extends Schema = Schema> {
  readonly path: string;
  readonly request: Q;
  readonly response: R;
}

export const rangeMethod = {
  path: '/etcdserverpb.KV/Range',
  request: rangeRequest,
  response: rangeResponse,
} as const satisfies Method;

export const txnMethod = {
  path: '/etcdserverpb.KV/Txn',
  request: txnRequest,
  response: txnResponse,
} as const satisfies Method;

export const watchMethod = {
  path: '/etcdserverpb.Watch/Watch',
  request: watchRequest,
  response: watchResponse,
} as const satisfies Method;

export const authenticateMethod = {
  path: '/etcdserverpb.Auth/Authenticate',
  request: authenticateRequest,
  response: authenticateResponse,
} as const satisfies Method;

export const leaseGrantMethod = {
  path: '/etcdserverpb.Lease/LeaseGrant',
  request: leaseGrantRequest,
  response: leaseResponse,
} as const satisfies Method;

/** A stream in etcd's definition; a stream of one request has one answer. */
export const leaseKeepAliveMethod = {
  path: '/etcdserverpb.Lease/LeaseKeepAlive',
  request: lease,
  response: leaseResponse,
} as const satisfies Method;

export const leaseRevokeMethod = {
  path: '/etcdserverpb.Lease/LeaseRevoke',
  request: lease,
  response: { header: { number: 1, message: header } },
} as const satisfies Method;

export type Header = Message<typeof header>;
export type KeyValue = Message<typeof keyValue>;
export type WatchEvent = Message<typeof event>;
export type WatchResponse = Message<typeof watchResponse>;
