/**
 * `netctl attach` and `netctl detach`: interfaces of containers that run.
 *
 * In: arguments. Out: requests to this node's agent. Never: a network namespace opened here.
 */
import type { AttachmentAdd, AttachmentItem, DetachedItem } from '../api/attachment-schemas.ts';
import type { Command } from './command.ts';
import { mappingsOf } from './endpoint-commands.ts';

export const attachCommands: readonly Command[] = [
  {
    words: 'attach NETNS NETWORK [IFNAME]',
    options: {
      profile: { type: 'list', value: 'NAME', help: 'its profiles, instead of those of the network' },
      ip: { type: 'list', value: 'ADDRESS', help: 'exactly this address' },
      publish: {
        type: 'list',
        value: '[ADDRESS:]PORT:PORT[/PROTOCOL]',
        help: 'a port of the host that leads to it: 8080:80/tcp',
      },
    },
    help: 'Add an interface on a network (by the name in its CNI configuration) to a running container: a process id, a path or a name below /run/netns.',
    async run({ args, api, output }) {
      const name = args.optionalText('IFNAME');
      const body: AttachmentAdd = {
        netns: args.text('NETNS'),
        network: args.text('NETWORK'),
        ...(name === undefined ? {} : { interface: name }),
        profiles: args.list('profile') ?? [],
        addresses: args.list('ip') ?? [],
        portMappings: mappingsOf(args.list('publish')) ?? [],
      };
      const made = await api().send<AttachmentItem>('POST', '/v1/attachments', body);
      const sentence = `${made.interface} on ${made.network}: ${made.addresses.join(', ')}`;
      await output.changed('attachment', made.interface, sentence, made);
    },
  },
  {
    words: 'detach NETNS IFNAME',
    help: 'Take an interface away from a running container.',
    async run({ args, api, output }) {
      const query = new URLSearchParams({ netns: args.text('NETNS'), interface: args.text('IFNAME') });
      const gone = await api().send<DetachedItem>('DELETE', `/v1/attachments?${query}`);
      await output.changed(
        'attachment',
        gone.interface,
        `${gone.interface} on ${gone.network} is gone`,
        gone,
      );
    },
  },
];
