import type { DescFile, DescMethod } from '@bufbuild/protobuf';
import { file_grpc_health_v1_health } from '../gen/grpc/health/v1/health_pb.ts';
import { file_hoc_cus_policies_v1_conflict_resolver } from '../gen/hoc/cus/policies/v1/conflict_resolver_pb.ts';
import { file_hoc_cus_policies_v1_policy_arbitrator } from '../gen/hoc/cus/policies/v1/policy_arbitrator_pb.ts';
import { file_hoc_cus_policies_v1_symbol_table } from '../gen/hoc/cus/policies/v1/symbol_table_pb.ts';
import { file_hoc_cus_policies_v1_transaction } from '../gen/hoc/cus/policies/v1/transaction_pb.ts';

/** A file and all that it imports. */
const withImports = (file: DescFile): DescFile[] => [file, ...file.dependencies.flatMap(withImports)];

const FILES = [
  file_hoc_cus_policies_v1_transaction,
  file_hoc_cus_policies_v1_conflict_resolver,
  file_hoc_cus_policies_v1_policy_arbitrator,
  file_hoc_cus_policies_v1_symbol_table,
  file_grpc_health_v1_health,
].flatMap(withImports);

/** Every RPC that a scenario can call: `Service/Method`, the service without its package. */
export const methods: ReadonlyMap<string, DescMethod> = new Map(
  FILES.flatMap(({ services }) => services)
    .flatMap(({ methods: each }) => each)
    .map((method) => [`${method.parent.name}/${method.name}`, method]),
);
