import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import { type RpcError, refuse } from '../contract/errors.ts';

/** Values that one request may hold: fields, elements of lists, entries of maps, at every depth. */
export const MAX_ELEMENTS = 125_000;

/** RESOURCE_EXHAUSTED: what the request holds would take too long to read. */
export const tooManyElements = (): RpcError =>
  refuse('REQUEST_TOO_COMPLEX', `a request may hold at most ${MAX_ELEMENTS} fields, list elements and map entries`, {
    metadata: { limit: String(MAX_ELEMENTS) },
  });

/** Counts what is told of one request, and refuses what is too much. */
export const elementBudget = (): ((elements: number) => void) => {
  let total = 0;
  return (elements) => {
    total += elements;
    if (total > MAX_ELEMENTS) throw tooManyElements();
  };
};

const VARINT = 0;
const FIXED64 = 1;
const DELIMITED = 2;
const FIXED32 = 5;

/** Levels that a reader of protobuf takes; deeper ones are its refusal, not one of size. */
const MAX_DEPTH = 100;

const indexes = new WeakMap<DescMessage, Map<number, DescField>>();

const fieldOf = (desc: DescMessage, number: number): DescField | undefined => {
  let index = indexes.get(desc);
  if (!index) {
    index = new Map(desc.fields.map((field) => [field.number, field]));
    indexes.set(desc, index);
  }
  return index.get(number);
};

const WIDTHS: Readonly<Partial<Record<ScalarType, number>>> = {
  [ScalarType.DOUBLE]: 8,
  [ScalarType.FIXED64]: 8,
  [ScalarType.SFIXED64]: 8,
  [ScalarType.FLOAT]: 4,
  [ScalarType.FIXED32]: 4,
  [ScalarType.SFIXED32]: 4,
};

/** The most numbers that a packed list of so many bytes holds; zero for what is no such list. */
const packed = (field: DescField | undefined, length: number): number => {
  if (field?.fieldKind !== 'list' || field.listKind === 'message') return 0;
  if (field.listKind === 'scalar' && !field.packed) return 0;
  return length / (WIDTHS[field.scalar as ScalarType] ?? 1);
};

/** A message, or the entries of a map. */
type Type = DescMessage | DescField;

/** Fields that are but the wrapping of one value, which has been counted already. */
const wrapping = (type: Type): number =>
  type.kind === 'field' ? 2 : type.typeName === 'google.protobuf.Value' ? 1 : 0;

const insideOf = (type: Type, field: DescField | undefined, number: number): Type | undefined => {
  if (type.kind === 'field') return number === 2 ? type.message : undefined;
  return field?.fieldKind === 'map' ? field : field?.message;
};

/**
 * Counts the values of an encoded message without making any. Bytes that are no message are left to its reader.
 *
 * @throws RESOURCE_EXHAUSTED when there are more than a request may hold.
 */
export const countElements = (desc: DescMessage, bytes: Uint8Array): void => {
  let at = 0;
  let left = MAX_ELEMENTS;
  let broken = false;

  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = bytes[at];
      if (byte === undefined) break;
      at += 1;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    broken = true;
    return 0;
  };

  const count = (elements: number): void => {
    left -= elements;
    if (left < 0) throw tooManyElements();
  };

  const scan = (type: Type, end: number, depth: number): void => {
    let free = wrapping(type);
    while (at < end && !broken) {
      if (free > 0) free -= 1;
      else count(1);
      const tag = varint();
      switch (tag & 7) {
        case VARINT:
          varint();
          break;
        case FIXED64:
          at += 8;
          break;
        case FIXED32:
          at += 4;
          break;
        case DELIMITED: {
          const number = Math.floor(tag / 8);
          const field = type.kind === 'message' ? fieldOf(type, number) : undefined;
          const length = varint();
          const stop = at + length;
          if (broken || stop > end) {
            broken = true;
            return;
          }
          const inside = insideOf(type, field, number);
          if (inside && depth < MAX_DEPTH) scan(inside, stop, depth + 1);
          else count(packed(field, length));
          at = stop;
          break;
        }
        default:
          // Groups are no part of this contract: whatever follows is the reader's.
          broken = true;
      }
    }
  };

  scan(desc, bytes.length, 0);
};
