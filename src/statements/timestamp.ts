import type { Bytes } from '../database/bytes.ts';

/** Seconds from 1970 to 2000, from when PostgreSQL counts. */
const EPOCH = 946_684_800;
const FIRST_SECOND = -62_135_596_800;
const LAST_SECOND = 253_402_300_799;

const SECONDS = 0x08;
const NANOS = 0x10;

const HALF = 2 ** 32;

const MILLION = 1_000_000n;

const exactly = (high: number, low: number): bigint => BigInt(high) * BigInt(HALF) + BigInt(low);

/** Whole seconds of so many microseconds; exact for all that 64 bits hold. */
const secondsOf = (high: number, low: number): number => {
  const total = high * HALF + low;
  if (Number.isSafeInteger(total)) return Math.floor(total / 1e6);
  const exact = exactly(high, low);
  return Number((exact - (((exact % MILLION) + MILLION) % MILLION)) / MILLION);
};

/** The microseconds beside those seconds. */
const microsOf = (high: number, low: number, seconds: number): number => {
  const total = high * HALF + low;
  if (Number.isSafeInteger(total)) return total - seconds * 1e6;
  return Number(exactly(high, low) - BigInt(seconds) * MILLION);
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
  const since = secondsOf(high, low);
  const micros = microsOf(high, low, since);
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

const DAY = 86_400;
/** Days from 0000-03-01 to 2000-01-01, and in 400 years. */
const DAYS_TO_EPOCH = 730_425;
const ERA = 146_097;

const padded = (number: number, digits: number): string => String(number).padStart(digits, '0');

/** Year, month and day of the Gregorian calendar so many days after 2000-01-01; the year before 1 is 0. */
const dateOf = (daysSinceEpoch: number): readonly [year: number, month: number, day: number] => {
  const days = daysSinceEpoch + DAYS_TO_EPOCH;
  const era = Math.floor(days / ERA);
  const ofEra = days - era * ERA;
  const yearOfEra = Math.floor(
    (ofEra - Math.floor(ofEra / 1_460) + Math.floor(ofEra / 36_524) - Math.floor(ofEra / 146_096)) / 365,
  );
  const ofYear = ofEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const fromMarch = Math.floor((5 * ofYear + 2) / 153);
  const month = fromMarch < 10 ? fromMarch + 3 : fromMarch - 9;
  const day = ofYear - Math.floor((153 * fromMarch + 2) / 5) + 1;
  return [era * 400 + yearOfEra + (month <= 2 ? 1 : 0), month, day];
};

/** The text that PostgreSQL has, in UTC, for its microseconds since 2000, whichever they are; halves as above. */
export const timestampText = (high: number, low: number): string => {
  if (high === 0x7fffffff && low === 0xffffffff) return 'infinity';
  if (high === -0x80000000 && low === 0) return '-infinity';
  const since = secondsOf(high, low);
  const micros = microsOf(high, low, since);
  const days = Math.floor(since / DAY);
  const second = since - days * DAY;
  const [year, month, day] = dateOf(days);
  const date = `${padded(year > 0 ? year : 1 - year, 4)}-${padded(month, 2)}-${padded(day, 2)}`;
  const [hours, minutes] = [Math.floor(second / 3_600), Math.floor((second % 3_600) / 60)];
  const time = `${padded(hours, 2)}:${padded(minutes, 2)}:${padded(second % 60, 2)}`;
  const fraction = micros === 0 ? '' : `.${padded(micros, 6).replace(/0+$/, '')}`;
  return `${date} ${time}${fraction}+00${year > 0 ? '' : ' BC'}`;
};
