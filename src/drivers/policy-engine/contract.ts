import type { PolicyEngineService } from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import type { Rpcs } from '../driver.ts';

/** Some RPCs of the service; the driver joins them all. */
export type Part = Partial<Rpcs<typeof PolicyEngineService>>;
