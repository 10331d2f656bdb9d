import { type DescMessage, isFieldSet, type MessageShape } from '@bufbuild/protobuf';
import { protoCamelCase } from '@bufbuild/protobuf/reflect';
import type { FieldMask } from '@bufbuild/protobuf/wkt';
import type { FieldViolation } from '../contract/errors.ts';
import type { FieldName } from '../contract/fields.ts';
import { EVERY, mask, type Rule, type Rules, requestCheck, unchecked, uuid } from '../contract/rules.ts';
import { type Param, type Query, statement } from '../database/statement.ts';
import { columnNamed, type Table, table } from '../database/table.ts';
import { parameterOf } from './parameters.ts';
import { type Storing, storedFields } from './stored-fields.ts';

/** A request to change the columns that its mask names. */
interface PatchRequest<P extends DescMessage> {
  readonly updates?: MessageShape<P> | undefined;
  readonly updateMask?: FieldMask | undefined;
}

/** What entity and message alone do not tell. Keys are proto field names. */
interface PatchOptions<E extends Table, P extends DescMessage> extends Storing<E, P> {
  /** Rules that go before those of the columns. */
  readonly rules?: Rules<P>;
  /** Fields whose columns hold NULL only in rows that are older than this service: nobody makes them NULL. */
  readonly neverNull?: readonly FieldName<P>[];
  /** Fields that become the time of the transaction where the parameter of that number is true. */
  readonly clocks?: { readonly [F in FieldName<P>]?: number };
}

/** SQL, parameters and rules of a change of the columns that a mask names. */
interface Patch<P extends DescMessage> {
  /**
   * One assignment a field; a column that the mask leaves out is set to itself, so that one statement serves every mask.
   *
   * @param first number of the first of {@link Patch.params}.
   */
  readonly assignments: (first: number) => string;
  /** Whether a field becomes that; numbered as {@link Patch.assignments}. */
  readonly becomes: (field: FieldName<P>, value: string, first: number) => string;
  /** The paths, then the values of the fields that they name, in field order; the others have not been looked at. */
  readonly params: (request: PatchRequest<P>) => Param[];
  /** Fields that the mask names, in its order; `*` names all. */
  readonly named: (request: PatchRequest<P>) => readonly string[];
  /** Rules of the request: what the mask may name. What it names is for {@link Patch.check}. */
  readonly rules: { readonly updates: Rule<unknown>; readonly update_mask: Rule<FieldMask> };
  /**
   * Finds what is wrong with what the mask names: a value must satisfy the rules, and what is left unset must be able to
   * be NULL. An empty mask is a forgotten one, and refused.
   */
  readonly check: (request: PatchRequest<P>) => FieldViolation[];
}

/** The mask says what of them is looked at. */
const BY_MASK: Rule<unknown> = unchecked(() => undefined);

const FORGOTTEN: FieldViolation = { field: 'update_mask', description: 'must name what is to change, or be *' };

/** Derives a patch from a message and an entity, as `insert` does: each field changes the column of its own name. */
export const patch = <E extends Table, P extends DescMessage>(
  entity: E,
  message: P,
  options: PatchOptions<E, P> = {},
): Patch<P> => {
  const { neverNull = [] } = options;
  const clocks: Readonly<Record<string, number | undefined>> = options.clocks ?? {};
  const fields = storedFields(entity, message, options);
  const paths = message.fields.map(({ name }) => name);
  const fitting = Object.fromEntries(fields.map(({ field, rule }) => [field.name, rule])) as Rules<P>;
  const ofValues = requestCheck(message, { ...fitting, ...options.rules });
  const demanded = fields
    .filter(({ field, nullable }) => !nullable || (neverNull as readonly string[]).includes(field.name))
    .map(({ field }) => field);
  const named: Patch<P>['named'] = ({ updateMask }) => {
    const given = updateMask?.paths ?? [];
    return given[0] === EVERY ? paths : given;
  };
  const isNamed = (field: string, first: number): string => `'${field}' = any($${first}::text[])`;
  const parameter = (field: string, first: number): string => {
    const index = paths.indexOf(field);
    return parameterOf(entity, fields[index]!.name, first + 1 + index);
  };
  return {
    assignments: (first) =>
      fields
        .map(({ field, name }) => {
          const target = columnNamed(entity, name);
          const clock = clocks[field.name];
          const now = clock === undefined ? '' : `when $${clock}::boolean then now() `;
          const change = `when ${isNamed(field.name, first)} then ${parameter(field.name, first)}`;
          return `${target} = case ${now}${change} else ${target} end`;
        })
        .join(', '),
    becomes: (field, value, first) => `${isNamed(field, first)} and ${parameter(field, first)} = ${value}`,
    params: (request) => {
      const names = named(request);
      const given = (request.updates ?? {}) as Readonly<Record<string, unknown>>;
      const values = fields.map(({ field, bind }) =>
        bind(names.includes(field.name) ? given[field.localName] : undefined),
      );
      return [names, ...values];
    },
    named,
    rules: { updates: BY_MASK, update_mask: mask(paths) },
    check: (request) => {
      const { updates } = request;
      const names = new Set(named(request));
      if (names.size === 0) return [FORGOTTEN];
      const given = (updates ?? {}) as Readonly<Record<string, unknown>>;
      const unset = demanded
        .filter(({ localName }) => given[localName] === undefined)
        .map(({ name }) => ({ field: name, description: 'must be set' }));
      return (
        [...(updates ? ofValues(updates) : []), ...unset]
          // `applies_to.values[0]` is of the path `applies_to`.
          .filter(({ field }) => names.has(field.split(/[.[]/, 1)[0]!))
          .map(({ field, description }) => ({ field: `updates.${field}`, description }))
      );
    },
  };
};

type CamelCase<S extends string> = S extends `${infer First}_${infer Rest}`
  ? `${First}${Capitalize<CamelCase<Rest>>}`
  : S;

interface PatchUpdateOptions<E extends Table, P extends DescMessage, I extends string> extends PatchOptions<E, P> {
  /** The field of the request that names the row. */
  readonly idField: I;
}

/**
 * Declares an update by field mask of a table whose primary key is the UUID `id`.
 *
 * @returns rules and check of a request; and the update, which counts the rows changed. An empty mask without values
 *   names nothing: then the id is not looked at, and no row is changed.
 */
export const patchUpdate = <E extends Table, P extends DescMessage, I extends string>(
  name: string,
  entity: E,
  message: P,
  options: PatchUpdateOptions<E, P, I>,
) => {
  type Request = PatchRequest<P> & { readonly [K in CamelCase<I>]: string };
  const { idField } = options;
  const idName = protoCamelCase(idField) as CamelCase<I>;
  const { rules, assignments, params, named, check: ofPatch } = patch(entity, message, options);
  const update = statement(name, `update ${table(entity)} set ${assignments(2)} where id = $1::uuid`);
  const check = (request: Request): FieldViolation[] => {
    const { updates } = request;
    if (named(request).length === 0 && !message.fields.some((field) => updates && isFieldSet(updates, field)))
      return [];
    const idProblem = uuid(request[idName]);
    return [...(idProblem ? [{ field: idField, description: idProblem }] : []), ...ofPatch(request)];
  };
  const ask = (request: Request): Query<unknown> | undefined =>
    named(request).length === 0 ? undefined : update.with(request[idName], ...params(request));
  return { rules, check, ask };
};
