/**
 * Tables for shim.test.ts: what the CNI executable answers without any agent.
 * In: nothing. Out: environments and texts as runtimes could send them, and the error or version that must come back.
 * Codes, texts and their order are those of the Go library `skel`, which every runtime takes for granted.
 */
import { type Environment, environment } from './shim-harness.ts';

export const SUPPORTED = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'];
const LIST = SUPPORTED.map((v) => `"${v}"`).join(' ');
export const ADD: Environment = environment('ADD');
export const DEL = { ...ADD, CNI_COMMAND: 'DEL' };
export const CHECK = { ...ADD, CNI_COMMAND: 'CHECK' };
export const GC = { CNI_COMMAND: 'GC', CNI_PATH: '/opt/cni/bin' };
export const STATUS = { CNI_COMMAND: 'STATUS', CNI_PATH: '/opt/cni/bin' };
const CONFIG = '{"cniVersion":"1.1.0","name":"edge"}';
/** Passes every check of text and name, and then fails with code 7 without going to an agent. */
const PROBE_SOCKET = '"socket":"relative"';

export const without = (env: Environment, ...keys: string[]): Environment =>
  Object.fromEntries(Object.entries(env).filter(([key]) => !keys.includes(key)));

export type Refusal = { code: number; msg: string | RegExp; details?: string; cniVersion?: string };

const missing = (names: string): Refusal => ({
  code: 4,
  msg: `required env variables [${names}] missing`,
  cniVersion: '1.0.0',
});
const undecodable = (why: string | RegExp): Refusal => ({
  code: 6,
  msg: typeof why === 'string' ? `error unmarshall network config: ${why}` : why,
});
const END = undecodable('unexpected end of JSON input');
const BAD_CHARACTER = undecodable(/^error unmarshall network config: invalid character /);
const BAD_NAME = { code: 7, msg: 'invalid characters found in network name' };
const BAD_SOCKET = {
  code: 7,
  msg: 'socket must be the absolute path of a unix socket, a string of at most 107 bytes',
};
const PASSED = { ...BAD_SOCKET, details: 'relative' };
const named = (name: string) => `{"name":${name},${PROBE_SOCKET}}`;
const holding = (value: string) => `{"name":"n",${PROBE_SOCKET},"x":${value}}`;
const nest = (depth: number) => `{"name":"n",${PROBE_SOCKET},"x":${'['.repeat(depth)}${']'.repeat(depth)}}`;
export const padded = (size: number) => CONFIG.replace('}', `,${PROBE_SOCKET}}`).padEnd(size);

/** Environment, standard input, what comes back. */
export const REFUSALS: [string, Environment, string | Buffer, Refusal][] = [
  ['nothing but ADD', { CNI_COMMAND: 'ADD' }, '', missing('CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH')],
  [
    'nothing but CHECK',
    { CNI_COMMAND: 'CHECK' },
    '',
    missing('CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH'),
  ],
  ['nothing but DEL', { CNI_COMMAND: 'DEL' }, '', missing('CNI_CONTAINERID,CNI_IFNAME,CNI_PATH')],
  ['nothing but GC', { CNI_COMMAND: 'GC' }, '', missing('CNI_PATH')],
  ['nothing but STATUS', { CNI_COMMAND: 'STATUS' }, '', missing('CNI_PATH')],
  ['empty is missing', { ...ADD, CNI_NETNS: '', CNI_PATH: '' }, CONFIG, missing('CNI_NETNS,CNI_PATH')],
  [
    'missing comes before bad',
    { ...without(ADD, 'CNI_PATH'), CNI_CONTAINERID: '-' },
    CONFIG,
    missing('CNI_PATH'),
  ],
  ['unknown command', { CNI_COMMAND: 'FOO' }, '', { code: 4, msg: 'unknown CNI_COMMAND: FOO' }],
  [
    'lower case command',
    { ...ADD, CNI_COMMAND: 'add' },
    CONFIG,
    { code: 4, msg: 'unknown CNI_COMMAND: add' },
  ],
  [
    'command to escape',
    { CNI_COMMAND: 'a"\\\n\x01\u00e9' },
    '',
    { code: 4, msg: 'unknown CNI_COMMAND: a"\\\n\x01\u00e9' },
  ],
  ...['-x', 'a/b', '.x', 'a b', '_', 'a\u00e9'].map((id): [string, Environment, string, Refusal] => [
    `container ID ${id}`,
    { ...ADD, CNI_CONTAINERID: id },
    '{',
    { code: 4, msg: 'invalid characters in containerID', details: id },
  ]),
  [
    'long ifname',
    { ...ADD, CNI_IFNAME: 'a'.repeat(16) },
    '{',
    {
      code: 4,
      msg: 'interface name is too long',
      details: 'interface name should be less than 16 characters',
    },
  ],
  ...['.', '..'].map((n): [string, Environment, string, Refusal] => [
    `ifname ${n}`,
    { ...ADD, CNI_IFNAME: n },
    '{',
    { code: 4, msg: 'interface name is . or ..' },
  ]),
  ...['a/b', 'a:b', 'a b', 'a\tb', 'a\nb'].map((n): [string, Environment, string, Refusal] => [
    `ifname ${JSON.stringify(n)}`,
    { ...DEL, CNI_IFNAME: n },
    '{',
    { code: 4, msg: 'interface name contains / or : or whitespace characters' },
  ]),
  ['ID and ifname are not looked at for GC', { ...GC, CNI_CONTAINERID: '-', CNI_IFNAME: '/' }, '{', END],
  ['15 bytes of ifname', { ...ADD, CNI_IFNAME: 'a'.repeat(15) }, '{', END],

  ['empty input', ADD, '', END],
  ['truncated object', ADD, '{"name":"n"', END],
  ['truncated string', ADD, '{"name":"n', END],
  ['truncated escape', ADD, '{"name":"n\\', END],
  ['truncated word', ADD, '{"x":tru', END],
  ['array', ADD, '[]', undecodable('the configuration must be a JSON object')],
  ['number', ADD, '12', undecodable('the configuration must be a JSON object')],
  ['null, as in Go', ADD, 'null', { code: 7, msg: 'missing network name' }],
  ['text after the object', ADD, '{"name":"n"} x', undecodable("invalid character 'x' at byte 13")],
  ['byte order mark', ADD, `\ufeff${CONFIG}`, BAD_CHARACTER],
  ['NUL between tokens', ADD, '{"name":"n"\0}', undecodable('invalid character 0x00 at byte 11')],
  ['NUL in a string', ADD, '{"name":"n\0"}', BAD_CHARACTER],
  [
    'control character in a string',
    ADD,
    '{"name":"n\x1f"}',
    undecodable('invalid character 0x1f at byte 10'),
  ],
  ['newline in a string', ADD, '{"name":"n\n"}', BAD_CHARACTER],
  [
    'size limit',
    ADD,
    padded((1 << 20) + 1),
    { code: 5, msg: 'error reading from stdin: the network configuration is larger than 1048576 bytes' },
  ],
  ['size limit kept', ADD, padded(1 << 20), PASSED],
  ['65 levels', ADD, nest(64), undecodable('nested deeper than 64 levels')],
  ['64 levels', ADD, nest(63), PASSED],
  ['a million levels', ADD, '['.repeat(1 << 20), undecodable('nested deeper than 64 levels')],
  ...[
    '{]',
    '[}',
    '[1,]',
    '{"a":1,}',
    '{"a"}',
    '{"a":}',
    '{1:2}',
    '{,}',
    '[,]',
    '01',
    '-',
    '+1',
    '.5',
    '1.',
    '1e',
    '1e+',
    '--1',
    '0x1',
    'True',
    'nul!',
    'NaN',
    "'a'",
    '"\\x"',
    '"\\u12g4"',
    '"\\ud800\\u12"',
    '"\\U0041"',
    '1 2',
    '{"a" 1}',
    '"\t"',
    '/**/1',
  ].map((value): [string, Environment, string, Refusal] => [
    `invalid value ${value}`,
    ADD,
    holding(value),
    BAD_CHARACTER,
  ]),
  ...[
    '{}',
    '[]',
    '[[],{}]',
    '-0',
    '0.5e-10',
    '1E+2',
    '123456789012345678901234567890',
    'true',
    'false',
    'null',
    ' \t\r\n1 ',
    '"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00"',
    '"\\ud800"',
    '"\u00e9"',
    '{"name":1,"cniVersion":[]}',
    '"\x7f"',
  ].map((value): [string, Environment, string, Refusal] => [
    `valid value ${value}`,
    ADD,
    holding(value),
    PASSED,
  ]),
  ['broken UTF-8 in a string', ADD, Buffer.from(holding('"\xff"'), 'latin1'), PASSED],

  ['no name', ADD, '{}', { code: 7, msg: 'missing network name' }],
  ['empty name', ADD, named('""'), { code: 7, msg: 'missing network name' }],
  ['null name', ADD, named('null'), { code: 7, msg: 'missing network name' }],
  ['name is a number', ADD, named('1'), undecodable('name must be a string')],
  ['name is an object', ADD, named('{"name":"n"}'), undecodable('name must be a string')],
  ['bad name', ADD, named('"-a"'), { ...BAD_NAME, details: '-a' }],
  [
    'broken UTF-8 in the name',
    ADD,
    Buffer.from(named('"a\xff"'), 'latin1'),
    { ...BAD_NAME, details: 'a\ufffd' },
  ],
  ['NUL in the name', ADD, named('"a\\u0000b"'), BAD_NAME],
  ['name of 4095 bytes', ADD, named(`"${'a'.repeat(4095)}"`), PASSED],
  [
    'name of 4096 bytes',
    ADD,
    named(`"${'a'.repeat(4096)}"`),
    { code: 7, msg: 'network name is longer than 4095 bytes' },
  ],
  ['escapes in the name', ADD, named('"\\u006e\\u002D1"'), PASSED],
  [
    'escapes that make it bad',
    ADD,
    named('"a\\ud83d\\ude00\\u00e9\\ud800z\\""'),
    { ...BAD_NAME, details: 'a\u{1f600}\u00e9\ufffdz"' },
  ],
  ['last name wins', ADD, '{"name":"n","name":"/"}', { ...BAD_NAME, details: '/' }],
  ['keys in any case, escaped', ADD, '{"name":"n","N\\u0041ME":"/"}', { ...BAD_NAME, details: '/' }],
  ['null does not unset', ADD, `{"name":"n","name":null,${PROBE_SOCKET}}`, PASSED],

  [
    'unknown version',
    ADD,
    '{"cniVersion":"9.9.9","name":"n"}',
    {
      code: 1,
      msg: 'incompatible CNI versions',
      details: `config is "9.9.9", plugin supports [${LIST}]`,
      cniVersion: '9.9.9',
    },
  ],
  [
    'not quite a version',
    DEL,
    '{"cniVersion":"1.1","name":"n"}',
    { code: 1, msg: 'incompatible CNI versions', details: `config is "1.1", plugin supports [${LIST}]` },
  ],
  [
    'version with a NUL',
    ADD,
    '{"cniVersion":"1.0.0\\u0000","name":"n"}',
    { code: 1, msg: 'incompatible CNI versions' },
  ],
  [
    'version is a number',
    ADD,
    '{"cniVersion":1,"name":"n"}',
    { code: 6, msg: 'decoding version from network config: cniVersion must be a string' },
  ],
  [
    'name before version',
    ADD,
    '{"cniVersion":"9.9.9"}',
    { code: 7, msg: 'missing network name', cniVersion: '9.9.9' },
  ],
  ['no version', ADD, holding('1'), { ...PASSED, cniVersion: '1.0.0' }],
  ...SUPPORTED.map((v): [string, Environment, string, Refusal] => [
    `ADD ${v}`,
    ADD,
    `{"cniVersion":"${v}",${holding('1').slice(1)}`,
    { ...PASSED, cniVersion: v },
  ]),
  ...(['0.1.0', '0.3.1', ''] as const).map((v): [string, Environment, string, Refusal] => [
    `CHECK "${v}"`,
    CHECK,
    `{"cniVersion":"${v}","name":"n"}`,
    { code: 1, msg: 'config version does not allow CHECK' },
  ]),
  ['CHECK 0.4.0', CHECK, `{"cniVersion":"0.4.0",${holding('1').slice(1)}`, PASSED],
  ['GC 1.0.0', GC, '{"cniVersion":"1.0.0","name":"n"}', { code: 1, msg: 'config version does not allow GC' }],
  [
    'STATUS 1.0.0',
    STATUS,
    '{"cniVersion":"1.0.0","name":"n"}',
    { code: 1, msg: 'config version does not allow STATUS' },
  ],

  ...[
    '""',
    '"run/x"',
    '"/run/"',
    '1',
    '{}',
    '"/a\\u0000b"',
    `"/${'a'.repeat(107)}"`,
    `"/${'a'.repeat(5000)}"`,
  ].map((s): [string, Environment, string, Refusal] => [
    `socket ${s.slice(0, 20)}`,
    ADD,
    `{"name":"n","socket":${s}}`,
    BAD_SOCKET,
  ]),
  [
    'environment too large',
    { ...DEL, CNI_ARGS: 'a'.repeat(65_000), CNI_PATH: 'p'.repeat(66_000) },
    CONFIG,
    { code: 4, msg: 'the CNI_* variables are longer than 131059 bytes together' },
  ],
  [
    'no such netns',
    { ...ADD, CNI_NETNS: '/nonexistent' },
    CONFIG,
    { code: 8, msg: 'cannot use CNI_NETNS /nonexistent: No such file or directory', cniVersion: '1.1.0' },
  ],
  [
    'netns is a plain file',
    { ...CHECK, CNI_NETNS: '/etc/passwd' },
    CONFIG,
    { code: 8, msg: /^cannot use CNI_NETNS \/etc\/passwd: not a namespace/ },
  ],
  [
    'netns is a mount namespace',
    { ...ADD, CNI_NETNS: '/proc/self/ns/mnt' },
    CONFIG,
    { code: 8, msg: /not a network namespace$/ },
  ],
  [
    'netns is our own',
    { ...ADD, CNI_NETNS: '/proc/self/ns/net' },
    CONFIG,
    { code: 8, msg: "plugin's netns and netns from CNI_NETNS should not be the same" },
  ],
  [
    'override says no',
    { ...ADD, CNI_NETNS: '/proc/self/ns/net', CNI_NETNS_OVERRIDE: '0' },
    CONFIG,
    { code: 8, msg: /should not be the same/ },
  ],
];

export const VERSIONS: [string, string | Buffer, string][] = [
  ['empty input', '', '1.1.0'],
  ['as libcni asks', '{"cniVersion":"1.0.0"}', '1.0.0'],
  ['unknown version', '{"cniVersion":"9.\\u0039.\\"9"}', '9.9."9'],
  ['garbage', '\0{"', '1.1.0'],
  ['garbage after a version', '{"cniVersion":"0.4.0"', '1.1.0'],
  ['number', '{"cniVersion":1}', '1.1.0'],
  ['empty string', '{"cniVersion":""}', '1.1.0'],
  ['key in another case', '{"CNIVERSION":"0.3.1"}', '0.3.1'],
  ['too much', Buffer.alloc((1 << 20) + 1, ' '), '1.1.0'],
];
