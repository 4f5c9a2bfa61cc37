/**
 * The part of the Container Runtime Interface (runtime.v1 of k8s.io/cri-api) by which a kubelet runs pods; crictl is in no Debian package.
 *
 * In: containerd's socket, pods. Out: their life. Never: a call without a deadline.
 */
import { Client, credentials } from '@grpc/grpc-js';
import type { Result } from '../../lab/run.ts';
import {
  decodeMessage,
  encodeMessage,
  type Given,
  type Message,
  type Schema,
} from '../../src/store/etcd-protobuf.ts';

const metadata = {
  name: { number: 1, type: 'string' },
  uid: { number: 2, type: 'string' },
  namespace: { number: 3, type: 'string' },
  attempt: { number: 4, type: 'number' },
} as const satisfies Schema;
const podConfig = {
  metadata: { number: 1, message: metadata },
  hostname: { number: 2, type: 'string' },
  log_directory: { number: 3, type: 'string' },
  linux: { number: 8, message: { cgroup_parent: { number: 1, type: 'string' } } },
} as const satisfies Schema;
const podId = { pod_sandbox_id: { number: 1, type: 'string' } } as const satisfies Schema;
const containerId = { container_id: { number: 1, type: 'string' } } as const satisfies Schema;
const empty = {} as const satisfies Schema;
const condition = {
  type: { number: 1, type: 'string' },
  status: { number: 2, type: 'bool' },
  reason: { number: 3, type: 'string' },
  message: { number: 4, type: 'string' },
} as const satisfies Schema;

const methods = {
  Status: {
    request: empty,
    response: {
      status: { number: 1, message: { conditions: { number: 1, message: condition, repeated: true } } },
    },
  },
  RunPodSandbox: { request: { config: { number: 1, message: podConfig } }, response: podId },
  StopPodSandbox: { request: podId, response: empty },
  RemovePodSandbox: { request: podId, response: empty },
  PodSandboxStatus: {
    request: podId,
    response: {
      status: {
        number: 1,
        message: { network: { number: 5, message: { ip: { number: 1, type: 'string' } } } },
      },
    },
  },
  CreateContainer: {
    request: {
      pod_sandbox_id: { number: 1, type: 'string' },
      config: {
        number: 2,
        message: {
          metadata: {
            number: 1,
            message: { name: { number: 1, type: 'string' }, attempt: { number: 2, type: 'number' } },
          },
          image: { number: 2, message: { image: { number: 1, type: 'string' } } },
          command: { number: 3, type: 'string', repeated: true },
          log_path: { number: 11, type: 'string' },
        },
      },
      sandbox_config: { number: 3, message: podConfig },
    },
    response: containerId,
  },
  StartContainer: { request: containerId, response: empty },
  ExecSync: {
    request: {
      container_id: { number: 1, type: 'string' },
      cmd: { number: 2, type: 'string', repeated: true },
      timeout: { number: 3, type: 'number' },
    },
    response: {
      stdout: { number: 1, type: 'bytes' },
      stderr: { number: 2, type: 'bytes' },
      exit_code: { number: 3, type: 'number' },
    },
  },
} as const satisfies Record<string, { request: Schema; response: Schema }>;

type Methods = typeof methods;
export type PodConfig = Given<typeof podConfig>;

export class Cri {
  readonly #client: Client;

  constructor(socket: string) {
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure(), {
      'grpc.default_authority': 'localhost',
      'grpc.max_reconnect_backoff_ms': 500,
    });
  }

  /** @returns the pod's id. @throws what containerd says, with the plugin's error in it */
  async runPod(config: PodConfig): Promise<string> {
    return (await this.#call('RunPodSandbox', { config })).pod_sandbox_id;
  }

  /** @returns the container's id */
  async runContainer(
    pod: string,
    config: PodConfig,
    image: string,
    command: readonly string[],
  ): Promise<string> {
    const { container_id } = await this.#call('CreateContainer', {
      pod_sandbox_id: pod,
      config: { metadata: { name: 'main', attempt: 0 }, image: { image }, command, log_path: 'main.log' },
      sandbox_config: config,
    });
    await this.#call('StartContainer', { container_id });
    return container_id;
  }

  async exec(container_id: string, cmd: readonly string[]): Promise<Result> {
    const { exit_code, stdout, stderr } = await this.#call('ExecSync', { container_id, cmd, timeout: 10 });
    return { code: exit_code, stdout: stdout.toString(), stderr: stderr.toString() };
  }

  async stopPod(pod_sandbox_id: string): Promise<void> {
    await this.#call('StopPodSandbox', { pod_sandbox_id });
  }

  async removePod(pod_sandbox_id: string): Promise<void> {
    await this.#call('RemovePodSandbox', { pod_sandbox_id });
  }

  async addressOf(pod_sandbox_id: string): Promise<string | undefined> {
    return (await this.#call('PodSandboxStatus', { pod_sandbox_id })).status?.network?.ip;
  }

  async conditions() {
    return (await this.#call('Status', {})).status?.conditions ?? [];
  }

  close(): void {
    this.#client.close();
  }

  #call<N extends keyof Methods>(
    name: N,
    request: Given<Methods[N]['request']>,
  ): Promise<Message<Methods[N]['response']>> {
    return new Promise((resolve, reject) => {
      // It may have come back a moment ago: the client tries to connect until the deadline.
      this.#client.waitForReady(Date.now() + 10_000, (late) => {
        if (late) return reject(late);
        this.#client.makeUnaryRequest(
          `/runtime.v1.RuntimeService/${name}`,
          (message: Given<Methods[N]['request']>) => encodeMessage(methods[name].request, message),
          (bytes): Message<Methods[N]['response']> => decodeMessage(methods[name].response, bytes),
          request,
          { deadline: Date.now() + 30_000 },
          (error, answer) => (error ? reject(error) : resolve(answer!)),
        );
      });
    });
  }
}
