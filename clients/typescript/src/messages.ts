/** Messages and enums of the contract, and what its fields need. */
export * from './gen/hoc/cus/policies/v1/access_pb.ts';
export * from './gen/hoc/cus/policies/v1/conflict_resolver_pb.ts';
export * from './gen/hoc/cus/policies/v1/error_reason_pb.ts';
export * from './gen/hoc/cus/policies/v1/operation_pb.ts';
export * from './gen/hoc/cus/policies/v1/policy_arbitrator_pb.ts';
export * from './gen/hoc/cus/policies/v1/policy_engine_pb.ts';
export * from './gen/hoc/cus/policies/v1/policy_graph_pb.ts';
export * from './gen/hoc/cus/policies/v1/policy_proposal_read_pb.ts';
export * from './gen/hoc/cus/policies/v1/policy_proposal_write_pb.ts';
export * from './gen/hoc/cus/policies/v1/policy_read_pb.ts';
export * from './gen/hoc/cus/policies/v1/policy_rules_pb.ts';
export * from './gen/hoc/cus/policies/v1/policy_rules_read_pb.ts';
export * from './gen/hoc/cus/policies/v1/proposals_read_pb.ts';
export * from './gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
export * from './gen/hoc/cus/policies/v1/recovery_write_pb.ts';
export * from './gen/hoc/cus/policies/v1/scope_resolver_pb.ts';
export * from './gen/hoc/cus/policies/v1/symbol_table_pb.ts';
export * from './gen/hoc/cus/policies/v1/transaction_pb.ts';
export * from './gen/hoc/cus/policies/v1/types_pb.ts';

import { fromJson, type JsonValue, toJson } from '@bufbuild/protobuf';
import { type Value, ValueSchema } from '@bufbuild/protobuf/wkt';

/** A document for a field of the type Value. */
export const toValue = (json: JsonValue): Value => fromJson(ValueSchema, json);

/** The document of a field of the type Value. */
export const fromValue = (value: Value): JsonValue => toJson(ValueSchema, value);

export {
  timestampDate as toDate,
  timestampFromDate as fromDate,
  timestampNow as now,
} from '@bufbuild/protobuf/wkt';
