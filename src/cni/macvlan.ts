/**
 * What a network configuration says of the wire that its containers sit on.
 *
 * In: a checked configuration. Out: the wire, or null for a routed network. Never: a word for a wire on a network that has none; two that
 * do not go together.
 */
import {
  duplicateDetections,
  gatewayChecks,
  hostAccesses,
  type MacvlanAttachment,
  macvlanModes,
  parseWord,
} from '../model/macvlan.ts';
import { parseInterfaceName } from '../model/names.ts';
import type { Config } from './config.ts';
import { CniError } from './errors.ts';

/** @throws CniError, or INVALID naming the field */
export function macvlanOf(config: Config): MacvlanAttachment | null {
  const { parent, vlan, macvlanMode, hostAccess, duplicateDetection, gatewayCheck, defaultRoute } = config;
  if (config.mode !== 'macvlan') {
    const words = { parent, vlan, macvlanMode, hostAccess, duplicateDetection, gatewayCheck };
    const stray = Object.entries(words).find(([, value]) => value);
    if (stray !== undefined)
      throw new CniError(7, `invalid network config: ${stray[0]}: only with mode macvlan`);
    return null;
  }
  if (!parent)
    throw new CniError(7, 'invalid network config: parent: mode macvlan needs the interface to sit on');
  const wire: MacvlanAttachment = {
    parent: parseInterfaceName(parent, 'parent'),
    vlan: vlan || null,
    mode: parseWord(macvlanModes, macvlanMode, 'macvlanMode', 'bridge'),
    hostAccess: parseWord(hostAccesses, hostAccess, 'hostAccess', 'none'),
    duplicateDetection: parseWord(duplicateDetections, duplicateDetection, 'duplicateDetection', 'off'),
    gatewayCheck: parseWord(gatewayChecks, gatewayCheck, 'gatewayCheck', 'off'),
    defaultRoute: defaultRoute ?? true,
  };
  if (wire.hostAccess === 'shim' && wire.mode !== 'bridge')
    throw new CniError(
      7,
      `invalid network config: hostAccess: shim reaches nobody with macvlanMode ${wire.mode}: set macvlanMode to bridge, or hostAccess to veth`,
    );
  return wire;
}
