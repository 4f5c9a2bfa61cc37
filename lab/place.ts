/**
 * Where a host lives: this process's own network namespace, another one, or a machine of the lab.
 *
 * In: command lines and paths as they are on the host. Out: the same as they are here. Never: state; a place is made and ended
 * by others.
 */

export interface Place {
  /** The command line that runs a program there, or in one of its containers' network namespaces (a name below /run/netns). */
  command(command: readonly string[], netns?: string): string[];
  /** What a file there is called here. */
  path(path: string): string;
}

/** @param name below /run/netns; null is the caller's own namespace */
export function namespacePlace(name: string | null): Place {
  return {
    command: (command, netns) => {
      const target = netns ?? name;
      return target === null ? [...command] : ['nsenter', `--net=/run/netns/${target}`, ...command];
    },
    path: (path) => path,
  };
}
