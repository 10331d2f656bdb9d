import { type DescMessage, type Message, toBinary } from '@bufbuild/protobuf';
import type { ResponseSize } from '../contract/response-size.ts';
import type { Session } from '../database/session.ts';
import type { Query, Row } from '../database/statement.ts';
import { TextRows } from '../database/text-rows.ts';

/** What stands before a message in a list: its tag, and its length. */
const BEFORE = 2;

/**
 * Collects rows as the messages that a response lists. What they are as bytes is only looked at when so much text has come
 * that they may be too many: then no more are made.
 */
export class MessageRows<T> extends TextRows<T> {
  readonly #message: DescMessage;
  readonly #size: ResponseSize;
  #text = 0;
  #look: number;

  constructor(message: DescMessage, map: (row: Row) => T, size: ResponseSize) {
    super((row) => {
      for (const cell of row) this.#text += cell?.length ?? 0;
      return map(row);
    });
    this.#message = message;
    this.#size = size;
    this.#look = size.limit;
  }

  override row(bytes: Buffer, at: number): void {
    super.row(bytes, at);
    if (this.#text <= this.#look) return;
    let total = 0;
    for (const each of this.rows) total += BEFORE + toBinary(this.#message, each as Message).length;
    this.#size.hold(total);
    this.#look = this.#text * 2;
  }
}

/** All rows of a statement that a response lists, each a message. */
export const listed = async <T extends Message>(
  db: Session,
  { statement, params }: Query<T>,
  message: DescMessage,
  size: ResponseSize,
): Promise<T[]> => {
  const map = (row: Row): T => statement.map(row, db.notes);
  return (await db.collect(statement, params, () => new MessageRows(message, map, size))).sink.rows;
};
