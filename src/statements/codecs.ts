import { type DescEnum, type DescField, ScalarType } from '@bufbuild/protobuf';
import type { Value } from '@bufbuild/protobuf/wkt';
import {
  arrayFromText,
  flatArray,
  int32FromText,
  int64FromText,
  jsonToValue,
  type Note,
  nearestInteger,
  nearestTimestamp,
  parseJson,
  storedText,
  timestampFromText,
} from '../database/values.ts';

/** How the cells of a field are read. Never called with NULL. */
export interface Codec {
  /** The value, or undefined if the field cannot hold it. */
  readonly exact: (text: string) => unknown;
  /** What comes nearest to a value that the field cannot hold. */
  readonly nearest: (text: string, note: Note) => unknown;
  /** The value that keeps its text, where documents are told as that. */
  readonly withText?: (text: string) => unknown;
}

/** A codec of a type that holds whatever its columns do. */
const always = (exact: (text: string) => unknown): Codec => ({ exact, nearest: exact });

/** The numbers of an enum's values by the texts that are stored for them. */
export const enumNumbers = (desc: DescEnum): ReadonlyMap<string, number> => {
  const prefix = desc.sharedPrefix ?? '';
  const numbers = new Map<string, number>();
  for (const value of desc.values) {
    const stored = value.name.slice(prefix.length);
    numbers.set(stored, value.number);
    numbers.set(stored.toLowerCase(), value.number);
  }
  return numbers;
};

const enumCodec = (desc: DescEnum): Codec => {
  const numbers = enumNumbers(desc);
  return {
    exact: (text) => numbers.get(text),
    nearest: (_text, note) => {
      note('unspecified');
      return 0;
    },
  };
};

/** Text that the database stores for an enum value: its name without the prefix. */
export const enumText = (desc: DescEnum, number: number): string => {
  const value = desc.value[number];
  if (!value) throw new Error(`${desc.name} has no value ${number}`);
  return value.name.slice((desc.sharedPrefix ?? '').length);
};

/** As {@link enumText}, for a set whose stored texts are in lower case. */
export const lowerEnumText = (desc: DescEnum, number: number): string => enumText(desc, number).toLowerCase();

const documentFromText = (text: string): Value | undefined => {
  try {
    return jsonToValue(parseJson(text));
  } catch {
    return undefined;
  }
};

/** Codec of documents. What nobody can read, since it is nested too deep, is carried as its text. */
export const document = (exact: (text: string) => Value | undefined = documentFromText): Codec => ({
  exact,
  nearest: (text, note) => {
    note('as-text');
    return jsonToValue(text);
  },
});

const listMessage = (values: string[] | undefined): object | undefined =>
  values && { $typeName: 'hoc.cus.policies.v1.StringList', values };

/** Codec of documents as they are stored. What nobody can read has its text all the same. */
export const storedDocument: Codec = {
  ...document(),
  withText: storedText,
};

const MESSAGES: Readonly<Record<string, Codec>> = {
  'google.protobuf.Timestamp': { exact: timestampFromText, nearest: nearestTimestamp },
  'google.protobuf.Value': storedDocument,
  'hoc.cus.policies.v1.StringList': {
    exact: (text) => listMessage(arrayFromText(text)),
    nearest: (text, note) => listMessage(flatArray(text, note)),
  },
};

const scalarCodec = (type: ScalarType): Codec => {
  switch (type) {
    case ScalarType.STRING:
      return always((text) => text);
    case ScalarType.BOOL:
      return always((text) => text === 't');
    case ScalarType.DOUBLE:
      return always(Number);
    case ScalarType.INT32:
      return { exact: int32FromText, nearest: (text, note) => Number(nearestInteger(text, 32, note)) };
    case ScalarType.INT64:
      return { exact: int64FromText, nearest: (text, note) => nearestInteger(text, 64, note) };
    case ScalarType.BYTES:
      return always((text) => Buffer.from(text.slice(2), 'hex'));
    default:
      throw new Error(`no column becomes a ${ScalarType[type]}`);
  }
};

/** The codec that a field's type alone tells. */
export const codecOf = (field: DescField): Codec => {
  switch (field.fieldKind) {
    case 'scalar':
      return scalarCodec(field.scalar);
    case 'enum':
      return enumCodec(field.enum);
    case 'message': {
      const codec = MESSAGES[field.message.typeName];
      if (codec) return codec;
      break;
    }
    case 'list':
      if (field.listKind === 'scalar' && field.scalar === ScalarType.STRING) {
        return { exact: arrayFromText, nearest: flatArray };
      }
      break;
  }
  throw new Error(`no column becomes ${field.parent.typeName}.${field.name}`);
};
