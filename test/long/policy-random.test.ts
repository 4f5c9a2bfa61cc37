/** Random policy and random packets as in the short test, for an hour or so: `scripts/test-long` asks for many more worlds. */
import '../kernel/policy-random.test.ts';
