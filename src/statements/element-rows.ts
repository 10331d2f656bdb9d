import { type DescField, type DescMessage, type Message, ScalarType, toBinary } from '@bufbuild/protobuf';
import type { ResponseSize } from '../contract/response-size.ts';
import type { Session } from '../database/session.ts';
import type { Row } from '../database/statement.ts';
import { TextRows } from '../database/text-rows.ts';
import { collectPage, type ListQuery, type Walk } from './places.ts';

/** What stands before an element of a list: its tag, and its length. */
const BEFORE = 2;

/**
 * Collects rows as the elements that a response lists. What they are as bytes is only looked at when so much text has come
 * that they may be too many: then no more are made.
 */
export class ElementRows<T> extends TextRows<T> {
  readonly #bytesOf: (element: T) => number;
  readonly #size: ResponseSize;
  #text = 0;
  #look: number;

  /** @param bytesOf what an element is as protobuf. */
  constructor(bytesOf: (element: T) => number, map: (row: Row) => T, size: ResponseSize) {
    super((row) => {
      for (const cell of row) this.#text += cell?.length ?? 0;
      return map(row);
    });
    this.#bytesOf = bytesOf;
    this.#size = size;
    this.#look = size.limit;
  }

  override row(bytes: Buffer, at: number): void {
    super.row(bytes, at);
    if (this.#text <= this.#look) return;
    let total = 0;
    for (const each of this.rows) total += BEFORE + this.#bytesOf(each);
    this.#size.hold(total);
    this.#look = this.#text * 2;
  }
}

const messageBytes =
  (message: DescMessage) =>
  (element: unknown): number =>
    toBinary(message, element as Message).length;

/** Of a field's values what they are as protobuf; undefined where each has few bytes. */
export const bytesOf = ({ message, scalar }: DescField): ((element: unknown) => number) | undefined => {
  if (message) return messageBytes(message);
  return scalar === ScalarType.STRING ? (element) => Buffer.byteLength(element as string) : undefined;
};

/** Rows that a response lists, each a message, and the token that goes on after them. */
export const listed = async <T extends Message>(
  db: Session,
  query: ListQuery<T>,
  walk: Walk,
  message: DescMessage,
  size: ResponseSize,
): Promise<{ readonly items: T[]; readonly nextPageToken: string | undefined }> => {
  const map = (row: Row): T => query.statement.map(row, db.notes);
  const { sink, token } = await collectPage(db, query, walk, () => new ElementRows(messageBytes(message), map, size));
  return { items: sink.rows, nextPageToken: token };
};
