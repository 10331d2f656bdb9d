import aborted from '../../scenarios/aborted.json' with { type: 'json' };
import commit from '../../scenarios/commit.json' with { type: 'json' };
import execute from '../../scenarios/execute.json' with { type: 'json' };
import expiry from '../../scenarios/expiry.json' with { type: 'json' };
import health from '../../scenarios/health.json' with { type: 'json' };
import hold from '../../scenarios/hold.json' with { type: 'json' };
import invalidRequests from '../../scenarios/invalid-requests.json' with { type: 'json' };
import masks from '../../scenarios/masks.json' with { type: 'json' };
import readOnly from '../../scenarios/read-only.json' with { type: 'json' };
import reads from '../../scenarios/reads.json' with { type: 'json' };
import rollback from '../../scenarios/rollback.json' with { type: 'json' };
import savepoints from '../../scenarios/savepoints.json' with { type: 'json' };
import sequence from '../../scenarios/sequence.json' with { type: 'json' };
import singleUse from '../../scenarios/single-use.json' with { type: 'json' };
import streams from '../../scenarios/streams.json' with { type: 'json' };
import transactionRequired from '../../scenarios/transaction-required.json' with { type: 'json' };
import writes from '../../scenarios/writes.json' with { type: 'json' };
import { scenarioOf } from './load.ts';
import type { Scenario } from './scenario.ts';

const FILES: Readonly<Record<string, unknown>> = {
  'aborted.json': aborted,
  'commit.json': commit,
  'execute.json': execute,
  'expiry.json': expiry,
  'health.json': health,
  'hold.json': hold,
  'invalid-requests.json': invalidRequests,
  'masks.json': masks,
  'read-only.json': readOnly,
  'reads.json': reads,
  'rollback.json': rollback,
  'savepoints.json': savepoints,
  'sequence.json': sequence,
  'single-use.json': singleUse,
  'streams.json': streams,
  'transaction-required.json': transactionRequired,
  'writes.json': writes,
};

/** The scenarios of `scenarios/`, which are compiled into the program. */
export const shipped = (): Scenario[] => Object.entries(FILES).map(([file, content]) => scenarioOf(file, content));
