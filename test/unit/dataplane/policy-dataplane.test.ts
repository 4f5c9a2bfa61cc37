/** PolicyDataplane on the fake Linux: the scenarios, and random sequences with failures. */
import { FakeLinux } from '../../../src/linux/fake/linux.ts';
import { Agent, assertKernel, type CountedLinux, policyScenarios } from './policy-scenarios.ts';
import { randomSequences } from './random-sequences.ts';

policyScenarios(async () => new FakeLinux());

randomSequences<NonNullable<CountedLinux['failing']>, Agent>(
  () => new Agent(new FakeLinux()),
  ['batch', 'restore', 'save'],
  ({ linux, told }) => assertKernel(linux, told),
);
