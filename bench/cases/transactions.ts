import { fromBinary } from '@bufbuild/protobuf';
import pg from 'pg';
import { BeginResponseSchema } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import type { Case } from '../bench.ts';
import { begin, commit, execute, statements, writeIn } from '../calls.ts';
import { Channel } from '../channel.ts';
import { Rounds } from '../rounds.ts';
import { prepared, repeated } from '../sides.ts';

const STATEMENTS = 5;
const WRITE = prepared('write', statements.write);

/** One caller that does in transactions over RPC what `pg` does on a connection. */
export const transactions: Case = {
  name: 'transactions',
  run: async ({ database, fleet, report, roundMs: ms, ...pace }) => {
    const [ours] = await fleet();
    const channel = await Channel.open(ours!.address);
    const client = new pg.Client({ connectionString: database.url });
    const pipelined = new pg.Client({ connectionString: database.url, pipeline: true });
    for (const each of [client, pipelined]) {
      await each.connect();
      await each.query(WRITE);
    }

    const inTransaction = async (count: number): Promise<void> => {
      await client.query('begin');
      for (let index = 0; index < count; index += 1) await client.query(WRITE);
      await client.query('commit');
    };
    const inPipeline = (count: number): Promise<unknown> => {
      const begun = pipelined.query('begin');
      const writes = Array.from({ length: count }, () => pipelined.query(WRITE));
      return Promise.all([begun, ...writes, pipelined.query('commit')]);
    };
    const leased = async (): Promise<void> => {
      const begun = fromBinary(BeginResponseSchema, await channel.unary(begin));
      const id = begun.transaction!.id!;
      const statement = writeIn(id);
      for (let index = 0; index < STATEMENTS; index += 1) await channel.unary(statement);
      await channel.unary(commit(id));
    };
    const together = async (): Promise<void> => {
      const begun = fromBinary(BeginResponseSchema, await channel.unary(begin));
      const id = begun.transaction!.id!;
      await channel.unary(execute(STATEMENTS, id));
      await channel.unary(commit(id));
    };
    const executed = (count: number) => {
      const call = execute(count);
      return () => channel.unary(call);
    };

    const compare = async (title: string, work: Record<string, () => Promise<unknown>>): Promise<Rounds> => {
      const sides = Object.entries(work).map(([name, each]) => [name, repeated(each, ms)] as const);
      const found = await Rounds.of(new Map(sides), pace);
      report.rates(title, found);
      return found;
    };
    const lease = await compare(`Begin, ${STATEMENTS} writes, commit, 1 caller`, {
      sidecar: leased,
      'sidecar, by Execute': together,
      pg: () => inTransaction(STATEMENTS),
    });
    report.target(
      `leased begin, ${STATEMENTS} statements, commit: time of pg`,
      lease.ratio('pg', 'sidecar'),
      '<=',
      2.5,
    );
    report.target(
      `leased begin, ${STATEMENTS} statements in one Execute, commit: time of pg`,
      lease.ratio('pg', 'sidecar, by Execute'),
      '<=',
      2.5,
    );
    const ten = await compare('Execute of 10 writes, 1 caller', { sidecar: executed(10), pg: () => inTransaction(10) });
    report.target('Execute of 10: time of pg', ten.ratio('pg', 'sidecar'), '<=', 1.2);
    const thousand = await compare('Execute of 1,000 writes, 1 caller', {
      sidecar: executed(1_000),
      pg: () => inTransaction(1_000),
      'pg, pipelined': () => inPipeline(1_000),
    });
    report.target('Execute of 1,000, of pg pipelined', thousand.ratio('sidecar', 'pg, pipelined'), '>=', 0.5);

    channel.close();
    await client.end();
    await pipelined.end();
  },
};
