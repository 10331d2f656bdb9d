import { type DescEnum, type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import { commentOf, nameOf } from './contract.ts';
import { isChoiceRequired, isRequired, schemaOfElementRules, schemaOfRules } from './rules.ts';

/** A JSON Schema, or any part of the document. */
export type Json = { [name: string]: unknown };

export const refTo = (name: string): Json => ({ $ref: `#/components/schemas/${name}` });

/** Types that JSON writes in a form of their own. */
const WELL_KNOWN: Readonly<Record<string, Json>> = {
  'google.protobuf.Timestamp': { type: 'string', format: 'date-time', examples: ['2026-01-31T23:59:59.500Z'] },
  'google.protobuf.Duration': { type: 'string', pattern: '^-?\\d+(?:\\.\\d{1,9})?s$', examples: ['30s'] },
  'google.protobuf.FieldMask': { type: 'string', examples: ['name,description'] },
  'google.protobuf.Value': { description: 'Any JSON.', examples: [{ any: ['JSON', 1, null] }] },
  'google.protobuf.Struct': { type: 'object', examples: [{ any: 'JSON' }] },
};

const INT32: Json = { type: 'integer', format: 'int32', examples: [42] };
const UINT32: Json = { type: 'integer', minimum: 0, examples: [42] };
const INT64: Json = { type: 'string', format: 'int64', pattern: '^-?\\d+$', examples: ['42'] };
const UINT64: Json = { type: 'string', pattern: '^\\d+$', examples: ['42'] };
const DOUBLE: Json = {
  anyOf: [{ type: 'number' }, { enum: ['NaN', 'Infinity', '-Infinity'] }],
  examples: [0.5],
};

const SCALARS: Readonly<Record<ScalarType, Json>> = {
  [ScalarType.BOOL]: { type: 'boolean', examples: [true] },
  [ScalarType.STRING]: { type: 'string' },
  [ScalarType.BYTES]: { type: 'string', contentEncoding: 'base64', examples: ['AAEC/w=='] },
  [ScalarType.DOUBLE]: DOUBLE,
  [ScalarType.FLOAT]: DOUBLE,
  [ScalarType.INT32]: INT32,
  [ScalarType.SINT32]: INT32,
  [ScalarType.SFIXED32]: INT32,
  [ScalarType.UINT32]: UINT32,
  [ScalarType.FIXED32]: UINT32,
  [ScalarType.INT64]: INT64,
  [ScalarType.SINT64]: INT64,
  [ScalarType.SFIXED64]: INT64,
  [ScalarType.UINT64]: UINT64,
  [ScalarType.FIXED64]: UINT64,
};

const ID = '00000000-0000-0000-0000-000000000001';

/** A text such as a field may have, by its name and what is said of it. */
const textFor = (field: DescField): string => {
  if (/(?:^|_)ids?$|^idempotency_key$/.test(field.name)) return ID;
  if (field.name.endsWith('_json')) return '{"any":"JSON"}';
  return /decimal text/i.test(commentOf(field)) ? '1.250' : 'text';
};

const singular = ({ message, enum: values, scalar }: DescField): Json => {
  if (message) return WELL_KNOWN[message.typeName] ?? refTo(nameOf(message));
  if (values) return refTo(nameOf(values));
  return SCALARS[scalar as ScalarType];
};

/** A schema and what more is asked of it: a number that has bounds is no text. */
const narrowed = (schema: Json, rules: Json): Json => {
  const { anyOf, ...rest } = schema;
  return { ...(rules['type'] || !anyOf ? rest : schema), ...rules };
};

const schemaOfField = (field: DescField, ruled: boolean): Json => {
  const description = [commentOf(field), field.oneof && `At most one field of \`${field.oneof.name}\` is set.`];
  const said = { description: description.filter(Boolean).join('\n\n') };
  const rules = ruled ? schemaOfRules(field) : {};
  if (field.fieldKind === 'list') {
    const items = ruled ? narrowed(singular(field), schemaOfElementRules(field)) : singular(field);
    return { type: 'array', items, ...rules, ...said };
  }
  if (field.fieldKind === 'map') return { type: 'object', additionalProperties: singular(field), ...said };
  const text = field.scalar === ScalarType.STRING ? { examples: [textFor(field)] } : {};
  return { ...narrowed(singular(field), rules), ...text, ...said };
};

/** Which fields must be there, alone or one of several. */
const required = (desc: DescMessage): Json => {
  const always = desc.fields.filter(isRequired).map(({ jsonName }) => jsonName);
  const choices = desc.oneofs
    .filter(isChoiceRequired)
    .map(({ fields }) => ({ oneOf: fields.map(({ jsonName }) => ({ required: [jsonName] })) }));
  return { ...(always.length ? { required: always } : {}), ...(choices.length ? { allOf: choices } : {}) };
};

/**
 * @param sent for a message that is only sent to the server, which refuses what it does not know and what its rules do not
 * allow; what is answered may hold what older programs stored.
 */
export const schemaOfMessage = (desc: DescMessage, sent: boolean): Json => ({
  type: 'object',
  description: commentOf(desc),
  properties: Object.fromEntries(desc.fields.map((field) => [field.jsonName, schemaOfField(field, sent)])),
  ...(sent ? { ...required(desc), additionalProperties: false } : {}),
});

export const schemaOfEnum = (desc: DescEnum): Json => ({
  type: 'string',
  description: [
    commentOf(desc),
    desc.values.map((value) => `- \`${value.name}\`: ${commentOf(value)}`).join('\n'),
  ].join('\n\n'),
  enum: desc.values.map(({ name }) => name),
});

const sampleOfValue = (field: DescField, wanted: (field: DescField) => boolean, depth: number): unknown => {
  const { message, enum: values, scalar } = field;
  if (message) {
    const known = WELL_KNOWN[message.typeName];
    return known ? (known['examples'] as unknown[])[0] : sampleOf(message, wanted, depth - 1);
  }
  if (values) return (values.values[1] ?? values.values[0])!.name;
  return scalar === ScalarType.STRING ? textFor(field) : (SCALARS[scalar as ScalarType]['examples'] as unknown[])[0];
};

/**
 * A message as JSON.
 *
 * @param wanted which of its fields are in it; of a oneof it is the first.
 * @param depth how many messages stand in one another at most.
 */
export const sampleOf = (desc: DescMessage, wanted: (field: DescField) => boolean, depth = 4): Json => {
  const chosen = desc.fields.filter(
    (field) => wanted(field) && (!field.oneof || field === field.oneof.fields[0]) && (depth > 0 || !field.message),
  );
  return Object.fromEntries(
    chosen.map((field) => {
      const value = sampleOfValue(field, wanted, depth);
      if (field.fieldKind === 'list') return [field.jsonName, [value]];
      return [
        field.jsonName,
        field.fieldKind === 'map' ? { [field.mapKey === ScalarType.STRING ? 'key' : '1']: value } : value,
      ];
    }),
  );
};
