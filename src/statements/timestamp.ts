import type { Bytes } from '../database/bytes.ts';

/** Seconds from 1970 to 2000, from when PostgreSQL counts. */
const EPOCH = 946_684_800;
const FIRST_SECOND = -62_135_596_800;
const LAST_SECOND = 253_402_300_799;

const SECONDS = 0x08;
const NANOS = 0x10;

const HALF = 2 ** 32;

/** Whole seconds and microseconds of so many microseconds; exact for all that 64 bits hold. */
const split = (high: number, low: number): readonly [seconds: number, micros: number] => {
  const total = high * HALF + low;
  if (Number.isSafeInteger(total)) {
    const seconds = Math.floor(total / 1e6);
    return [seconds, total - seconds * 1e6];
  }
  const exact = BigInt(high) * BigInt(HALF) + BigInt(low);
  const micros = ((exact % 1_000_000n) + 1_000_000n) % 1_000_000n;
  return [Number((exact - micros) / 1_000_000n), Number(micros)];
};

/**
 * Writes PostgreSQL's microseconds since 2000 as a `google.protobuf.Timestamp` with its length before it; there is room
 * for 20 bytes.
 *
 * @param high the upper half, signed.
 * @param low the lower half, unsigned.
 * @returns false for an instant outside the years 1 to 9999, of which nothing is written.
 */
export const writeTimestamp = (out: Bytes, high: number, low: number): boolean => {
  const [since, micros] = split(high, low);
  const seconds = since + EPOCH;
  if (seconds < FIRST_SECOND || seconds > LAST_SECOND) return false;
  const start = out.open();
  if (seconds !== 0) {
    const upper = Math.floor(seconds / HALF);
    out.byte(SECONDS);
    out.varint64(upper >>> 0, seconds - upper * HALF);
  }
  if (micros !== 0) {
    out.byte(NANOS);
    out.varint(micros * 1_000);
  }
  out.close(start);
  return true;
};
