import type { DescField, DescMessage, MessageShape } from '@bufbuild/protobuf';
import type { FieldMask, Timestamp, Value } from '@bufbuild/protobuf/wkt';
import { type FieldViolation, invalidArgument } from '../database/errors.ts';
import { column, enumText, type Table, table } from '../database/projection.ts';
import type { Session } from '../database/session.ts';
import { type Param, statement } from '../database/statement.ts';
import { jsonText, timestampToText } from '../database/values.ts';
import type { StringList } from '../gen/hoc/cus/policies/v1/types_pb.ts';
import { nestedCheck } from './nested.ts';
import { type Rules, uuid } from './rules.ts';

/** A request to change the columns that its mask names. */
interface PatchRequest<P extends DescMessage> {
  readonly updates?: MessageShape<P> | undefined;
  readonly updateMask?: FieldMask | undefined;
}

const bound = (field: DescField, value: unknown, textOf: typeof enumText): Param => {
  if (field.fieldKind === 'enum' && value !== undefined) return textOf(field.enum, value as number);
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
 * SQL: one assignment a field of the patch; a column that the mask leaves out is set to itself, so that one statement
 * serves every mask.
 *
 * @param mask number of the parameter that holds the mask's paths; the values follow it in field order.
 */
export const patchAssignments = (entity: Table, desc: DescMessage, mask: number): string => {
  const types = entity.meta.properties as Record<string, { columnType: string }>;
  return desc.fields
    .map((field, index) => {
      const target = column(entity, field.name);
      const value = `$${mask + 1 + index}::${types[field.name]!.columnType}`;
      return `${target} = case when '${field.name}' = any($${mask}::text[]) then ${value} else ${target} end`;
    })
    .join(', ');
};

/** Refuses fields of a patch that are named and left unset although their column holds no NULL, with what else is wrong. */
export const mustBeSet = (
  missing: readonly { readonly name: string }[],
  others: readonly FieldViolation[] = [],
): void => {
  const unset = missing.map(({ name }) => ({ field: `updates.${name}`, description: 'must be set' }));
  if (others.length + unset.length > 0) throw invalidArgument([...others, ...unset]);
};

/**
 * Parameters for {@link patchAssignments}: the paths, then the values of the fields they name.
 *
 * @param textOf what is stored for an enum value.
 * @param others what else is wrong with the request.
 * @throws INVALID_ARGUMENT naming the fields that are left unset although their column holds no NULL, and the others.
 */
export const patchParams = <P extends DescMessage>(
  entity: Table,
  desc: P,
  updates: MessageShape<P> | undefined,
  paths: readonly string[],
  textOf: typeof enumText = enumText,
  others: readonly FieldViolation[] = [],
): Param[] => {
  const given = (updates ?? {}) as Record<string, unknown>;
  const columns = entity.meta.properties as Record<string, { nullable?: boolean }>;
  const named = desc.fields.filter(({ name }) => paths.includes(name));
  const unset = named.filter(({ name, localName }) => given[localName] === undefined && !columns[name]!.nullable);
  mustBeSet(unset, others);
  return [
    paths,
    ...desc.fields.map((field) => (named.includes(field) ? bound(field, given[field.localName], textOf) : undefined)),
  ];
};

/**
 * Declares an update by field mask of a table whose primary key is the UUID `id`.
 *
 * @returns the paths a mask may hold, and the update; it counts the rows changed, or 0 for an empty mask without
 *   looking at the id.
 */
export const patchUpdate = <P extends DescMessage>(name: string, entity: Table, desc: P, rules: Rules<P>) => {
  const paths = desc.fields.map((field) => field.name);
  const update = statement(
    name,
    `update ${table(entity)} set ${patchAssignments(entity, desc, 2)} where id = $1::uuid`,
  );
  const check = nestedCheck(desc, rules);
  const run = async (db: Session, idField: string, id: string, request: PatchRequest<P>): Promise<bigint> => {
    const named = request.updateMask?.paths ?? [];
    if (named.length === 0) return 0n;
    const problems: FieldViolation[] = [];
    const idProblem = uuid(id);
    if (idProblem) problems.push({ field: idField, description: idProblem });
    if (request.updates) {
      problems.push(
        ...check(request.updates, 'updates').filter(({ field }) => named.includes(field.slice('updates.'.length))),
      );
    }
    return db.execute(update, [id, ...patchParams(entity, desc, request.updates, named, enumText, problems)]);
  };
  return { paths, run };
};
