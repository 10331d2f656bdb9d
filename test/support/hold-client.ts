/** Holds a transaction of the sidecar at the given address until it is killed; prints its id. */
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { grpcCaller } from './client.ts';

const caller = grpcCaller(process.argv[2]!);
for await (const { transaction } of caller.stream(TransactionService.method.hold, { begin: { label: 'held' } })) {
  process.stdout.write(`${transaction!.id}\n`);
}
