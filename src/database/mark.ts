import { firstText, statement } from './statement.ts';

/**
 * Where the log of a database stood at some moment: what was committed before is in every server of it that has replayed
 * so far.
 */
export interface Mark {
  /** PostgreSQL's number of the cluster, which its replicas share. */
  readonly system: string;
  /** Raised by every promotion. */
  readonly timeline: number;
  /** Bytes since the beginning of the log. */
  readonly position: bigint;
}

/**
 * The mark of a primary, as text. What is committed is in the log as far as it has been flushed, unless commits do not wait
 * for that. The parameter is the {@link originOf} a mark that the same server has told before, or NULL: to find it out, it
 * reads a file.
 */
export const MARK = statement(
  'mark.now',
  `select coalesce($1::text, (select system_identifier from pg_control_system()) || '-' || left(pg_walfile_name(at), 8)) || '-' || at
   from (select case current_setting('synchronous_commit') when 'off' then pg_current_wal_insert_lsn()
     else pg_current_wal_flush_lsn() end) as log (at)`,
  firstText,
);

const TEXT = /^(\d{1,20})-([\dA-F]{8})-([\dA-F]{1,8})\/([\dA-F]{1,8})$/;

/** What marks of one server have in common for as long as it takes writes: its cluster and timeline. */
export const originOf = (mark: string): string => mark.slice(0, mark.lastIndexOf('-'));

/** PostgreSQL's text of a position in the log, such as `16/B374D848`. */
export const lsnOf = (position: bigint): string =>
  `${(position >> 32n).toString(16)}/${(position & 0xffff_ffffn).toString(16)}`.toUpperCase();

/** Reads such a text. */
export const positionOf = (lsn: string): bigint => {
  const [high, low] = lsn.split('/');
  return (BigInt(`0x${high}`) << 32n) + BigInt(`0x${low}`);
};

/** Reads the text of a mark; undefined for any other. */
export const readMark = (text: string): Mark | undefined => {
  const [, system, timeline, high, low] = TEXT.exec(text) ?? [];
  if (system === undefined) return undefined;
  return { system, timeline: Number.parseInt(timeline!, 16), position: positionOf(`${high}/${low}`) };
};
