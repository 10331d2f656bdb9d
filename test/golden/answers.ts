import { type DescEnum, type DescField, type DescMessage, isFieldSet, type Message, toJson } from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence, type Timestamp, type Value, ValueSchema } from '@bufbuild/protobuf/wkt';
import { type Actual, EnumText, Row } from './compare.ts';
import { Instant } from './values.ts';

const enumText = (desc: DescEnum, number: number): Actual => {
  const value = desc.value[number];
  if (!value) throw new Error(`${desc.name} has no value ${number}`);
  return number === 0 ? null : new EnumText(value.name.slice((desc.sharedPrefix ?? '').length));
};

const ofMessage = (desc: DescMessage, value: unknown): Actual => {
  switch (desc.typeName) {
    case 'google.protobuf.Timestamp': {
      const { seconds, nanos } = value as Timestamp;
      if (nanos % 1000 !== 0) throw new Error(`an instant with ${nanos} nanoseconds is finer than any stored one`);
      return new Instant(seconds * 1_000_000n + BigInt(nanos / 1000));
    }
    case 'google.protobuf.Value':
      return toJson(ValueSchema, value as Value) as Actual;
    case 'google.protobuf.Struct':
      return value as Actual;
    case 'hoc.cus.policies.v1.StringList':
      return [...(value as { values: readonly string[] }).values];
    default:
      return rowOf(desc, value as Message);
  }
};

const ofElement = (field: DescField, kind: string, value: unknown): Actual => {
  if (kind === 'message') return ofMessage(field.message!, value);
  return kind === 'enum' ? enumText(field.enum!, value as number) : (value as Actual);
};

const ofField = (message: Message, field: DescField): Actual => {
  const holder = message as unknown as Record<string, unknown>;
  const value = field.oneof
    ? (holder[field.oneof.localName] as { value?: unknown }).value
    : (holder[field.localName] as unknown);
  switch (field.fieldKind) {
    case 'list':
      return (value as unknown[]).map((each) => ofElement(field, field.listKind, each));
    case 'map':
      return Object.fromEntries(
        Object.entries(value as object).map(([key, each]) => [key, ofElement(field, field.mapKind, each)]),
      );
    default:
      if (field.presence !== FeatureSet_FieldPresence.IMPLICIT && !isFieldSet(message, field)) return null;
      return ofElement(field, field.fieldKind, value);
  }
};

/** What the original drivers' lists had not. */
const isAddition = ({ name }: DescField): boolean => name === 'next_page_token';

/** A message in plain values: an unset field is null, an enum its text, a Timestamp an instant, a Value its JSON. */
export const rowOf = (desc: DescMessage, message: Message): Row =>
  new Row(
    desc.fields.filter((field) => !isAddition(field)).map((field) => [field.name, ofField(message, field)] as const),
  );
