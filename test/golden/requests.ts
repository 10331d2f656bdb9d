import { type DescEnum, type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import { EnumText } from './compare.ts';
import { Decimal, type Golden, Instant, isMap } from './values.ts';

/** How arguments become a request. */
export interface RequestOptions {
  /** Whether a JSON argument of this name is JSON text, to be taken as it stands. */
  readonly isJsonText: (name: string) => boolean;
  readonly storedTexts: StoredTexts;
  /** Whether the original's parameters have types: then a text is neither an instant nor a number. */
  readonly isTyped: boolean;
}

/** The texts of every closed set that a table keeps, in the letter case they are stored in. */
export type StoredTexts = readonly ReadonlySet<string>[];

/** Most rows an RPC can be asked for: the original's null limit means all of them, as does any greater number. */
const NO_LIMIT = 2_147_483_647;
const GREATEST_LIMIT = 2n ** 63n - 1n;

const isBeyondAll = (value: Golden): boolean =>
  value === null ||
  (typeof value === 'bigint' && value > NO_LIMIT && value <= GREATEST_LIMIT) ||
  (typeof value === 'number' && value > NO_LIMIT && Number.isSafeInteger(value));

const scalarText = (value: Golden): string => {
  if (value instanceof Decimal) return JSON.stringify(value.text);
  if (value instanceof Instant) return JSON.stringify(value.rfc3339);
  if (typeof value === 'bigint') return `"${value}"`;
  if (Object.is(value, -0)) return '-0';
  if (typeof value === 'number' && !Number.isFinite(value)) {
    return Number.isNaN(value) ? '"NaN"' : value > 0 ? '"Infinity"' : '"-Infinity"';
  }
  return JSON.stringify(value);
};

const nameOf = (desc: DescEnum, text: string): string => `${desc.sharedPrefix ?? ''}${text}`.toUpperCase();

const casesOf = (text: string): string[] => [text, text.toUpperCase(), text.toLowerCase()];

/** The stored texts that an enum stands for: those of the smallest sets with all its values, else of all sets. */
const textsOf = (desc: DescEnum, storedTexts: StoredTexts): readonly ReadonlySet<string>[] => {
  const names = desc.values
    .filter(({ number }) => number !== 0)
    .map(({ name }) => name.slice((desc.sharedPrefix ?? '').length));
  const own = storedTexts.filter((set) => names.every((name) => casesOf(name).some((each) => set.has(each))));
  const size = Math.min(...own.map((set) => set.size));
  return own.length === 0 ? storedTexts : own.filter((set) => set.size === size);
};

/** Whether a closed set holds a text: it has a value of that name, and no other letter case of it is the stored one. */
export const enumHolds = (desc: DescEnum, text: string, storedTexts: StoredTexts): boolean => {
  const sets = textsOf(desc, storedTexts);
  const cases = casesOf(text).filter((each) => sets.some((set) => set.has(each)));
  return (
    (cases.length === 0 || cases[0] === text) &&
    desc.values.some(({ name, number }) => number !== 0 && name === nameOf(desc, text))
  );
};

/** Name of the value that stands for a stored text; a text outside the set gets a name that does not exist. */
const enumName = (desc: DescEnum, value: Golden | EnumText, { storedTexts }: RequestOptions): string => {
  // From the answer of an earlier step.
  if (value instanceof EnumText) return JSON.stringify(nameOf(desc, value.text));
  const text = String(value);
  return JSON.stringify(enumHolds(desc, text, storedTexts) ? nameOf(desc, text) : `no ${text}`);
};

/** Text that no reader of JSON takes. */
const NO_JSON = '(no JSON)';

const isFiniteJson = (value: Golden): boolean =>
  typeof value === 'number'
    ? Number.isFinite(value)
    : typeof value !== 'object' || value === null || Object.values(value).every(isFiniteJson);

const valueText = (name: string, value: Golden, { isJsonText }: RequestOptions): string => {
  if (isJsonText(name)) return typeof value === 'string' ? value : NO_JSON;
  return isFiniteJson(value) ? JSON.stringify(value) : NO_JSON;
};

const messageText = (field: DescField, value: Golden, options: RequestOptions): string => {
  const desc = field.message!;
  switch (desc.typeName) {
    case 'google.protobuf.Timestamp':
      return scalarText(value);
    case 'google.protobuf.Value':
    case 'google.protobuf.Struct':
      return valueText(field.name, value, options);
    case 'hoc.cus.policies.v1.StringList':
      return `{"values":${JSON.stringify(value)}}`;
    default:
      return isMap(value) ? requestText(desc, value, options) : scalarText(value);
  }
};

/** Converted by the query builder, whatever the client library does. */
const PAGING = new Set(['limit', 'offset']);

/** Whether typed parameters refuse a text that protobuf's JSON would read. */
const isNoText = ({ message, scalar, name }: DescField): boolean =>
  message?.typeName === 'google.protobuf.Timestamp' || (scalar === ScalarType.INT32 && !PAGING.has(name));

const elementText = (field: DescField, kind: string, value: Golden, options: RequestOptions): string => {
  if (options.isTyped && typeof value === 'string' && isNoText(field)) return JSON.stringify(`(text) ${value}`);
  if (kind === 'message') return messageText(field, value, options);
  return kind === 'enum' ? enumName(field.enum!, value, options) : scalarText(value);
};

const fieldText = (field: DescField, value: Golden, options: RequestOptions): string => {
  if (field.fieldKind === 'list') {
    return Array.isArray(value)
      ? `[${value.map((each) => elementText(field, field.listKind, each, options)).join(',')}]`
      : scalarText(value);
  }
  return elementText(field, field.fieldKind, value, options);
};

const camel = (path: string): string => path.replace(/_([a-z])/g, (_match, letter: string) => letter.toUpperCase());

/** Text of a field mask that names these columns. */
export const maskText = (columns: readonly string[]): string => JSON.stringify(columns.map(camel).join(','));

/**
 * The request that says what a driver call's arguments say, as protobuf JSON text. Arguments map to fields by name and
 * are written as the field's type wants them; what the type cannot hold is written nevertheless, so that whoever reads
 * the text refuses it; so is an argument without a field. A null argument is an unset field, a null limit, or one beyond it, the largest one.
 *
 * A map for a field that has a mask beside it is a patch: the mask names its keys.
 */
export const requestText = (
  desc: DescMessage,
  args: { readonly [name: string]: Golden },
  options: RequestOptions,
): string => {
  const members: string[] = [];
  for (const [name, value] of Object.entries(args)) {
    const field = desc.fields.find((each) => each.name === name);
    if (!field) {
      members.push(`"${name}":${scalarText(value)}`);
      continue;
    }
    const mask = desc.fields.find((each) => each.message?.typeName === 'google.protobuf.FieldMask');
    if (mask && field.fieldKind === 'message' && isMap(value)) {
      members.push(`"${mask.name}":${maskText(Object.keys(value))}`);
    }
    if (name === 'limit' && isBeyondAll(value)) members.push(`"limit":${NO_LIMIT}`);
    else if (value !== null) members.push(`"${name}":${fieldText(field, value, options)}`);
  }
  return `{${members.join(',')}}`;
};
