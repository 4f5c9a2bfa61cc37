/**
 * What runtimes tell of a container in ways of their own: Mesos in `args."org.apache.mesos"`, Kubernetes and Nomad in CNI_ARGS, Kubernetes
 * also by annotations (capability `io.kubernetes.cri.pod-annotations`).
 *
 * In: the configuration, CNI_ARGS. Out: profiles, pools, addresses and labels as texts. Never: Kubernetes concluded from K8S_POD_NAME
 * alone (podman sends that), a label that the configuration itself gives overridden.
 */
import type { Config } from './config.ts';

export interface Told {
  readonly profiles: readonly string[];
  readonly pools: readonly string[];
  readonly addresses: readonly string[];
}

/** Annotations of the pod: `netctl/profiles`, `netctl/pools`, `netctl/addresses`, each a list with commas. */
export function toldByAnnotations({ runtimeConfig }: Config): Told {
  const annotations = runtimeConfig?.['io.kubernetes.cri.pod-annotations'] ?? {};
  const of = (name: string): string[] => commaList(annotations[`netctl/${name}`]);
  return { profiles: of('profiles'), pools: of('pools'), addresses: of('addresses') };
}

/** The groups of a task are its profiles, as with Mesos' own network isolators (mesos.proto, NetworkInfo). */
export function toldByMesos(config: Config): Told {
  const info = networkInfo(config);
  return {
    profiles: info?.groups ?? [],
    pools: [],
    addresses: (info?.ip_addresses ?? []).flatMap((entry) => entry.ip_address ?? []),
  };
}

/** Labels by which policies can pick containers. */
export function labelsTold(config: Config, args: ReadonlyMap<string, string>): Record<string, string> {
  const isKubernetes = Boolean(args.get('K8S_POD_NAMESPACE'));
  const fromArgs = Object.entries(labelOfArgument).flatMap(([argument, label]) => {
    const value = args.get(argument);
    return value && (isKubernetes || !argument.startsWith('K8S_')) ? [[label, value]] : [];
  });
  const pairs = [...(networkInfo(config)?.labels?.labels ?? []), ...(config.args?.cni?.labels ?? [])];
  return Object.fromEntries([...fromArgs, ...pairs.map(({ key, value }) => [key, value ?? ''])]);
}

const labelOfArgument: Readonly<Record<string, string>> = {
  K8S_POD_NAMESPACE: 'k8s.namespace',
  K8S_POD_NAME: 'k8s.pod',
  NOMAD_REGION: 'nomad.region',
  NOMAD_NAMESPACE: 'nomad.namespace',
  NOMAD_JOB_ID: 'nomad.job',
  NOMAD_GROUP_NAME: 'nomad.group',
};

const networkInfo = (config: Config) => config.args?.['org.apache.mesos']?.network_info;

export const commaList = (text: string | undefined): string[] =>
  (text ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
