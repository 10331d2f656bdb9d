import { type DescMessage, isFieldSet, type MessageShape } from '@bufbuild/protobuf';
import type { FieldMask } from '@bufbuild/protobuf/wkt';
import type { FieldViolation } from '../contract/errors.ts';
import type { FieldName } from '../contract/fields.ts';
import { EVERY, mask, type Rule, type Rules, requestCheck, unchecked, uuid } from '../contract/rules.ts';
import type { Query } from '../database/statement.ts';
import { type Param, statement } from '../database/statement.ts';
import { columnNamed, type Table, table } from '../database/table.ts';
import { binderOf, columnProperties, parameterOf } from '../statements/parameters.ts';
import { enumText } from './codecs.ts';
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
    rules: { updates: byMask, update_mask: mask(paths) },
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

/**
 * SQL: one assignment a field of the patch; a column that the mask leaves out is set to itself, so that one statement
 * serves every mask.
 *
 * @param mask number of the parameter that holds the mask's paths; the values follow it in field order.
 * @param clocks fields that become the time of the transaction where the parameter of that number is true.
 */
export const patchAssignments = (
  entity: Table,
  desc: DescMessage,
  mask: number,
  clocks: Readonly<Record<string, number>> = {},
): string =>
  desc.fields
    .map((field, index) => {
      const target = columnNamed(entity, field.name);
      const value = parameterOf(entity, field.name, mask + 1 + index);
      const clock = clocks[field.name];
      const now = clock === undefined ? '' : `when $${clock}::boolean then now() `;
      return `${target} = case ${now}when '${field.name}' = any($${mask}::text[]) then ${value} else ${target} end`;
    })
    .join(', ');

/** Fields of a patch that a mask names, in its order; `*` names all. */
export const pathsOf = (desc: DescMessage, updateMask: FieldMask | undefined): readonly string[] => {
  const paths = updateMask?.paths ?? [];
  return paths[0] === EVERY ? desc.fields.map(({ name }) => name) : paths;
};

/** Rule of `updates`: the mask says what of it is looked at, which {@link patchCheck} does. */
export const byMask: Rule<unknown> = unchecked(() => undefined);

/**
 * Declares the check of what a patch's mask names: a value must satisfy the rules, and what is left unset must be able to
 * be NULL. Values that the mask leaves out are not looked at; an empty mask is a forgotten one, and refused.
 *
 * @param cannotBeNull of the name of a field.
 */
export const patchCheck = <P extends DescMessage>(
  desc: P,
  rules: Rules<P>,
  cannotBeNull: (name: string) => boolean,
): ((request: PatchRequest<P>) => FieldViolation[]) => {
  const ofValues = requestCheck(desc, rules);
  return ({ updates, updateMask }) => {
    const named = new Set(pathsOf(desc, updateMask));
    const given = (updates ?? {}) as Record<string, unknown>;
    if (named.size === 0) {
      return [{ field: 'update_mask', description: 'must name what is to change, or be *' }];
    }
    const unset = desc.fields
      .filter(({ name, localName }) => given[localName] === undefined && cannotBeNull(name))
      .map(({ name }) => ({ field: name, description: 'must be set' }));
    return (
      [...(updates ? ofValues(updates) : []), ...unset]
        // `applies_to.values[0]` is of the path `applies_to`.
        .filter(({ field }) => named.has(field.split(/[.[]/, 1)[0]!))
        .map(({ field, description }) => ({ field: `updates.${field}`, description }))
    );
  };
};

/**
 * Whether a column of the entity holds no NULL.
 *
 * @param others columns that hold NULL only in rows that are older than this service: nobody makes them NULL.
 */
export const notNull =
  (entity: Table, others: readonly string[] = []) =>
  (name: string): boolean =>
    others.includes(name) || !columnProperties(entity, name).nullable;

/** The values that the mask names; the others have not been looked at. */
export const namedValues = <P extends DescMessage>(
  desc: P,
  updates: MessageShape<P> | undefined,
  updateMask: FieldMask | undefined,
): Partial<MessageShape<P>> => {
  const given = (updates ?? {}) as Record<string, unknown>;
  const paths = pathsOf(desc, updateMask);
  const named = desc.fields.filter(({ name }) => paths.includes(name));
  return Object.fromEntries(named.map(({ localName }) => [localName, given[localName]])) as Partial<MessageShape<P>>;
};

/**
 * Parameters for {@link patchAssignments}: the paths, then the values of the fields they name.
 *
 * @param textOf what is stored for an enum value.
 */
export const patchParams = <P extends DescMessage>(
  desc: P,
  updates: MessageShape<P> | undefined,
  updateMask: FieldMask | undefined,
  textOf: typeof enumText = enumText,
): Param[] => {
  const named = namedValues(desc, updates, updateMask) as Record<string, unknown>;
  return [pathsOf(desc, updateMask), ...desc.fields.map((field) => binderOf(field, textOf)(named[field.localName]))];
};

/**
 * Declares an update by field mask of a table whose primary key is the UUID `id`, named `idField` in the request.
 *
 * @returns the paths a mask may hold; the check of what it names; and the update, which counts the rows changed. An
 *   empty mask without values names nothing: then the id is not looked at, and no row is changed.
 */
export const patchUpdate = <P extends DescMessage>(
  name: string,
  entity: Table,
  desc: P,
  idField: string,
  rules: Rules<P>,
  neverNull: readonly string[] = [],
) => {
  const paths = desc.fields.map((field) => field.name);
  const update = statement(
    name,
    `update ${table(entity)} set ${patchAssignments(entity, desc, 2)} where id = $1::uuid`,
  );
  const ofPatch = patchCheck(desc, rules, notNull(entity, neverNull));
  const namesNone = ({ updateMask }: PatchRequest<P>): boolean => pathsOf(desc, updateMask).length === 0;
  const check = (id: string, request: PatchRequest<P>): FieldViolation[] => {
    const { updates } = request;
    if (namesNone(request) && !desc.fields.some((field) => updates && isFieldSet(updates, field))) return [];
    const idProblem = uuid(id);
    return [...(idProblem ? [{ field: idField, description: idProblem }] : []), ...ofPatch(request)];
  };
  const ask = (id: string, request: PatchRequest<P>): Query<unknown> | undefined => {
    const { updates, updateMask } = request;
    return namesNone(request) ? undefined : update.with(id, ...patchParams(desc, updates, updateMask));
  };
  return { paths, check, ask };
};
