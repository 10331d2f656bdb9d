import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import type { FieldMask, Timestamp, Value } from '@bufbuild/protobuf/wkt';
import { type FieldViolation, invalidArgument } from '../database/errors.ts';
import { column, type Table, table } from '../database/projection.ts';
import type { Session } from '../database/session.ts';
import { type Param, statement } from '../database/statement.ts';
import { jsonText, timestampToText } from '../database/values.ts';
import type { StringList } from '../gen/hoc/cus/policies/v1/types_pb.ts';
import { nestedCheck } from '../nested.ts';
import { type Rules, uuid } from './rules.ts';

/** A request to change the columns that its mask names. */
interface PatchRequest<P extends DescMessage> {
  readonly updates?: MessageShape<P> | undefined;
  readonly updateMask?: FieldMask | undefined;
}

const bound = (value: unknown): Param => {
  switch ((value as { $typeName?: string } | undefined)?.$typeName) {
    case 'google.protobuf.Timestamp':
      return timestampToText(value as Timestamp);
    case 'google.protobuf.Value':
      return jsonText(value as Value);
    case 'hoc.cus.policies.v1.StringList':
      return (value as StringList).values;
    default:
      return value as Param;
  }
};

/**
 * Declares an update by field mask of a table whose primary key is `id`. One statement serves every mask: a column that
 * the mask leaves out is set to itself.
 *
 * @returns the paths a mask may hold, and the update; it counts the rows changed, or 0 for an empty mask without
 *   looking at the id.
 */
export const patchUpdate = <P extends DescMessage>(name: string, entity: Table, desc: P, rules: Rules<P>) => {
  const paths = desc.fields.map((field) => field.name);
  const types = entity.meta.properties as Record<string, { columnType: string }>;
  const assignments = desc.fields.map((field, index) => {
    const target = column(entity, field.name);
    const value = `$${index + 3}::${types[field.name]!.columnType}`;
    return `${target} = case when '${field.name}' = any($2::text[]) then ${value} else ${target} end`;
  });
  const update = statement(name, `update ${table(entity)} set ${assignments.join(', ')} where id = $1::uuid`);
  const check = nestedCheck(desc, rules);
  const run = async (db: Session, idField: string, id: string, request: PatchRequest<P>): Promise<bigint> => {
    const named = request.updateMask?.paths ?? [];
    if (named.length === 0) return 0n;
    const updates = (request.updates ?? {}) as Record<string, unknown>;
    const values = desc.fields.map((field) => (named.includes(field.name) ? updates[field.localName] : undefined));
    const problems: FieldViolation[] = [];
    const idProblem = uuid(id);
    if (idProblem) problems.push({ field: idField, description: idProblem });
    if (request.updates) {
      problems.push(
        ...check(request.updates, 'updates').filter(({ field }) => named.includes(field.slice('updates.'.length))),
      );
    }
    if (problems.length > 0) throw invalidArgument(problems);
    return db.execute(update, [id, named, ...values.map(bound)]);
  };
  return { paths, run };
};
