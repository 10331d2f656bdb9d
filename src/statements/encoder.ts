import {
  create,
  type DescField,
  type DescMessage,
  type MessageInitShape,
  ScalarType,
  toBinary,
} from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence, type Value } from '@bufbuild/protobuf/wkt';
import { Bytes, int32At } from '../database/bytes.ts';
import { formatCodes } from '../database/messages.ts';
import type { Notes, Row, RowEncoder, RowWriter } from '../database/statement.ts';
import { jsonText, textValue } from '../database/values.ts';
import { BOOL, BYTEA, FLOAT8, INT2, INT4, INT8, JSON_TEXT, JSONB, TIMESTAMPTZ, textOf, textsOf } from './cell-text.ts';
import { enumNumbers, storedDocument } from './codecs.ts';
import { keyText, nearest, type Reader } from './inexact.ts';
import { writeJsonValue } from './json-value.ts';
import { writeTimestamp } from './timestamp.ts';

/** Those whose binary form costs less than their text, on either side. */
const BINARY = new Set([BOOL, BYTEA, INT8, INT2, INT4, FLOAT8, TIMESTAMPTZ]);

const VARINT = 0;
const FIXED64 = 1;
/** Wire type of what has its length before it. */
export const DELIMITED = 2;

/** The number that stands before a field. */
export const tagOf = ({ number }: DescField, wireType: number): number => (number << 3) | wireType;

/** A field of text, as bytes. */
export const textField = (field: DescField, text: string): Uint8Array => {
  const out = new Bytes(16 + text.length);
  out.varint(tagOf(field, DELIMITED));
  out.text(text);
  return out.written();
};

/** Writes one cell as a field; false where the field cannot hold it, and nothing has been written. */
type CellWriter = (out: Bytes, bytes: Buffer, at: number, length: number, notes: Notes) => boolean;

const copied =
  (tag: number, skipsEmpty: boolean): CellWriter =>
  (out, bytes, at, length) => {
    if (skipsEmpty && length === 0) return true;
    out.field(tag, bytes, at, length);
    return true;
  };

const bool =
  (tag: number, skipsZero: boolean): CellWriter =>
  (out, bytes, at) => {
    const value = bytes[at]!;
    if (skipsZero && value === 0) return true;
    out.reserve(10);
    out.varint(tag);
    out.byte(value);
    return true;
  };

/** @param width bytes of the cell. */
const integer =
  (tag: number, skipsZero: boolean, width: number, fits32: boolean): CellWriter =>
  (out, bytes, at) => {
    const low = width === 2 ? bytes.readInt16BE(at) : int32At(bytes, at + width - 4);
    const high = width === 8 ? int32At(bytes, at) : low >> 31;
    if (fits32 && high !== low >> 31) return false;
    if (skipsZero && low === 0 && high === 0) return true;
    out.reserve(20);
    out.varint(tag);
    out.varint64(high >>> 0, low >>> 0);
    return true;
  };

const double =
  (tag: number, skipsZero: boolean): CellWriter =>
  (out, bytes, at) => {
    if (skipsZero && int32At(bytes, at) === 0 && int32At(bytes, at + 4) === 0) return true;
    out.reserve(20);
    out.varint(tag);
    out.reversed(bytes, at);
    return true;
  };

const timestamp =
  (tag: number): CellWriter =>
  (out, bytes, at) => {
    const { at: start } = out;
    out.reserve(40);
    out.varint(tag);
    if (writeTimestamp(out, int32At(bytes, at), int32At(bytes, at + 4) >>> 0)) return true;
    out.at = start;
    return false;
  };

/** Field 3 of `google.protobuf.Value`, a string. */
const STRING_VALUE = 0x1a;

const documentAsStored =
  (tag: number): CellWriter =>
  (out, bytes, at, length, notes) => {
    const { at: start } = out;
    out.reserve(16);
    out.varint(tag);
    const value = out.open();
    if (notes.documentTexts) {
      out.field(STRING_VALUE, bytes, at, length);
      out.close(value);
      return true;
    }
    try {
      writeJsonValue(out, bytes, at, length);
    } catch {
      out.at = start;
      return false;
    }
    out.close(value);
    return true;
  };

const member =
  (tag: number, skipsZero: boolean, numbers: ReadonlyMap<string, number>): CellWriter =>
  (out, bytes, at, length) => {
    const number = numbers.get(bytes.toString('utf8', at, at + length));
    if (number === undefined) return false;
    if (skipsZero && number === 0) return true;
    out.reserve(20);
    out.varint(tag);
    out.varint(number);
    return true;
  };

/** A field as the library writes it, for what is too rare to be written here. */
const asMessage = (message: DescMessage, { localName }: DescField, value: unknown): Uint8Array =>
  toBinary(message, create(message, { [localName]: value } as MessageInitShape<DescMessage>));

/** A value that is computed of a cell, as callers are told it who take documents as text. */
const told = ({ message }: DescField, value: unknown): unknown =>
  message?.typeName === 'google.protobuf.Value' ? textValue(jsonText(value as Value)!) : value;

/** By way of the value that the cell's text becomes. */
const byValue =
  (message: DescMessage, { field, codec }: Reader, type: number, binary: boolean): CellWriter =>
  (out, bytes, at, length, notes) => {
    const value = codec.exact(textOf(type, binary, bytes, at, length));
    if (value === undefined) return false;
    out.all(asMessage(message, field, notes.documentTexts ? told(field, value) : value));
    return true;
  };

const scalarWriter = (field: DescField & { fieldKind: 'scalar' }, type: number, binary: boolean) => {
  const skipsZero = field.presence === FeatureSet_FieldPresence.IMPLICIT;
  switch (field.scalar) {
    case ScalarType.STRING:
      return binary ? undefined : copied(tagOf(field, DELIMITED), skipsZero);
    case ScalarType.BYTES:
      return type === BYTEA && binary ? copied(tagOf(field, DELIMITED), skipsZero) : undefined;
    case ScalarType.BOOL:
      return type === BOOL && binary ? bool(tagOf(field, VARINT), skipsZero) : undefined;
    case ScalarType.DOUBLE:
      return type === FLOAT8 && binary ? double(tagOf(field, FIXED64), skipsZero) : undefined;
    case ScalarType.INT32:
    case ScalarType.INT64: {
      const width = ({ [INT2]: 2, [INT4]: 4, [INT8]: 8 } as Readonly<Record<number, number>>)[type];
      if (width === undefined || !binary) return undefined;
      return integer(tagOf(field, VARINT), skipsZero, width, field.scalar === ScalarType.INT32);
    }
    default:
      return undefined;
  }
};

/** The way to write a field straight from the bytes of a cell; undefined where there is none. */
const directWriter = ({ field, codec }: Reader, type: number, binary: boolean): CellWriter | undefined => {
  switch (field.fieldKind) {
    case 'scalar':
      return scalarWriter(field, type, binary);
    case 'enum':
      if (binary) return undefined;
      return member(
        tagOf(field, VARINT),
        field.presence === FeatureSet_FieldPresence.IMPLICIT,
        enumNumbers(field.enum),
      );
    case 'message':
      if (field.message.typeName === 'google.protobuf.Timestamp' && type === TIMESTAMPTZ && binary) {
        return timestamp(tagOf(field, DELIMITED));
      }
      if (codec === storedDocument && (type === JSONB || type === JSON_TEXT) && !binary) {
        return documentAsStored(tagOf(field, DELIMITED));
      }
      return undefined;
    default:
      return undefined;
  }
};

/** What a form was made for, by the array of types that statements keep. */
interface Made {
  readonly wanted: Buffer;
  readonly writer: RowWriter;
}

/**
 * Writes rows as the bytes of a message, without making anything else of them. The types of the cells are what the server
 * says they are, so that a column of another type than expected is read as what it is.
 */
export class MessageEncoder implements RowEncoder {
  readonly #message: DescMessage;
  readonly #readers: readonly Reader[];
  readonly #keyAt: readonly number[];
  readonly #made = new WeakMap<readonly number[], Made>();

  /** @param keyAt places of the cells that tell rows apart. */
  constructor(message: DescMessage, readers: readonly Reader[], keyAt: readonly number[]) {
    this.#message = message;
    this.#readers = readers;
    this.#keyAt = keyAt;
  }

  wanted(types: readonly number[]): Buffer {
    return this.#madeFor(types).wanted;
  }

  writer(types: readonly number[], formats?: readonly number[]): RowWriter {
    return formats ? this.#write(types, formats) : this.#madeFor(types).writer;
  }

  #madeFor(types: readonly number[]): Made {
    const known = this.#made.get(types);
    if (known) return known;
    const formats = types.map((type, index) => {
      const reader = this.#readers[index];
      return reader && BINARY.has(type) && directWriter(reader, type, true) ? 1 : 0;
    });
    const made = { wanted: formatCodes(formats), writer: this.#write(types, formats) };
    this.#made.set(types, made);
    return made;
  }

  #write(types: readonly number[], formats: readonly number[]): RowWriter {
    const message = this.#message;
    const readers = this.#readers;
    const keyAt = this.#keyAt;
    const writers = readers.map((reader, index) => {
      const type = types[index] ?? 0;
      const binary = formats[index] === 1;
      return directWriter(reader, type, binary) ?? byValue(message, reader, type, binary);
    });
    // Texts are most of the cells, and a call for each would cost as much as to copy it.
    const textTags = readers.map(({ field }, index) => {
      const isText = field.fieldKind === 'scalar' && field.scalar === ScalarType.STRING && formats[index] !== 1;
      return isText ? tagOf(field, DELIMITED) : 0;
    });
    const texts = (bytes: Buffer, start: number): Row => textsOf(types, formats, bytes, start);
    return (out, bytes, start, notes) => {
      let at = start + 2;
      for (let index = 0; index < writers.length; index += 1) {
        const length = int32At(bytes, at);
        at += 4;
        if (length === -1) continue;
        const tag = textTags[index]!;
        if (tag !== 0 && length > 0) out.field(tag, bytes, at, length);
        else if (!writers[index]!(out, bytes, at, length, notes)) {
          const cells = texts(bytes, start);
          const value = nearest(readers[index]!, cells[index]!, keyText(cells, keyAt), notes);
          out.all(asMessage(message, readers[index]!.field, value));
        }
        at += length;
      }
    };
  }
}
