/**
 * `netctl tenant …` and `netctl ipam strict-affinity`: how many addresses a tenant may have, and whether nodes lend each other some.
 *
 * In: arguments. Out: requests to the API and what they answer. Never: a limit taken away by an option that is forgotten.
 */
import type { Removed } from '../api/schemas.ts';
import type { SettingsItem, TenantItem } from '../api/tenant-schemas.ts';
import { type Changed, printChange } from './change.ts';
import { segment } from './client.ts';
import { type Command, UsageError } from './command.ts';
import type { View } from './output.ts';

const tenantView: View<TenantItem> = {
  kind: 'tenant',
  plural: 'tenants with a quota',
  name: ({ name }) => name,
  columns: [
    { header: 'TENANT', value: ({ name }) => name },
    { header: 'MAX-ADDRESSES', value: ({ maxAddresses }) => maxAddresses, alignRight: true },
    { header: 'IN-USE', value: ({ used }) => used, alignRight: true },
  ],
};

export const tenantCommands: readonly Command[] = [
  {
    words: 'tenant show',
    help: 'List the tenants with a quota, and what they use of it.',
    async run({ api, output }) {
      await output.list(tenantView, (await api().send<{ items: TenantItem[] }>('GET', '/v1/tenants')).items);
    },
  },
  {
    words: 'tenant set NAME',
    options: {
      'max-addresses': {
        type: 'number',
        value: 'N',
        help: 'how many addresses it may have, those in cooldown not counted',
      },
    },
    help: 'Limit how many addresses a tenant may have; what it has beyond stays.',
    async run({ args, api, output }) {
      const name = args.text('NAME');
      const maxAddresses = args.number('max-addresses');
      if (maxAddresses === undefined) throw new UsageError('say how many: --max-addresses N');
      const changed = await api().send<Changed<TenantItem>>('PUT', `/v1/tenants/${segment(name)}`, {
        maxAddresses,
      });
      await printChange(output, 'tenant', name, `tenant ${name} may have ${maxAddresses} addresses`, changed);
    },
  },
  {
    words: 'tenant remove NAME',
    help: 'Take the limit of a tenant away; its addresses stay.',
    async run({ args, api, output }) {
      const name = args.text('NAME');
      const changed = await api().send<Removed>('DELETE', `/v1/tenants/${segment(name)}`);
      await printChange(output, 'tenant', name, `tenant ${name} has no limit any more`, changed);
    },
  },
  {
    words: 'ipam strict-affinity [STATE]',
    choices: { STATE: ['on', 'off'] },
    help: 'Show or set whether a node takes addresses of its own blocks only (on), or borrows where it has no room (off).',
    async run({ args, api, output }) {
      const state = args.optionalText('STATE');
      const say = (strict: boolean): string => `strict affinity is ${strict ? 'on' : 'off'}`;
      if (state === undefined) {
        const item = await api().send<SettingsItem>('GET', '/v1/settings');
        return output.changed('settings', 'ipam', say(item.strictAffinity), item);
      }
      const strictAffinity = state === 'on';
      const changed = await api().send<Changed<SettingsItem>>('PATCH', '/v1/settings', { strictAffinity });
      await printChange(output, 'settings', 'ipam', say(strictAffinity), changed);
    },
  },
];
