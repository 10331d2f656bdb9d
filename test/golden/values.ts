/** Plain JSON, as the golden files hold it. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** An instant, microseconds since 1970 UTC. */
export class Instant {
  readonly micros: bigint;

  constructor(micros: bigint) {
    this.micros = micros;
  }

  /** ISO 8601 with `+00:00` and six fraction digits, or none for a whole second. */
  get isoText(): string {
    const [date, fraction] = this.#parts();
    return `${date}${fraction === '000000' ? '' : `.${fraction}`}+00:00`;
  }

  /** As protobuf's JSON and PostgreSQL read it. */
  get rfc3339(): string {
    const [date, fraction] = this.#parts();
    return `${date}.${fraction}Z`;
  }

  #parts(): [string, string] {
    const fraction = ((this.micros % 1_000_000n) + 1_000_000n) % 1_000_000n;
    const date = new Date(Number((this.micros - fraction) / 1000n)).toISOString().slice(0, 19);
    return [date, String(fraction).padStart(6, '0')];
  }
}

/** An exact decimal as text. */
export class Decimal {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** A value of a jsonb column, JSON null included. */
export class JsonColumn {
  readonly json: Json;

  constructor(json: Json) {
    this.json = json;
  }
}

/** Text that shows an instant. */
export class IsoText {
  readonly instant: Instant;

  constructor(instant: Instant) {
    this.instant = instant;
  }
}

/** A value that a call sets by itself. */
export class Generated {
  readonly kind: 'timestamp' | 'uuid' | 'id' | 'size';

  constructor(kind: Generated['kind']) {
    this.kind = kind;
  }
}

/** Whole days since an instant, counted when the call is made. */
export class DaysSince {
  readonly instant: Instant;

  constructor(instant: Instant) {
    this.instant = instant;
  }
}

/** A golden value with its `$` forms resolved. */
export type Golden =
  | null
  | boolean
  | number
  | bigint
  | string
  | Instant
  | Decimal
  | JsonColumn
  | IsoText
  | Generated
  | DaysSince
  | readonly Golden[]
  | { readonly [key: string]: Golden };

/** True for a map of golden values. */
export const isMap = (value: unknown): value is { readonly [key: string]: Golden } =>
  typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;

const SECOND = 1_000_000n;
const HOUR = 3_600n * SECOND;

/** Reads ISO 8601 text with a zone; undefined when it is none. */
export const parseInstant = (text: string): Instant | undefined => {
  const match = /^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d(?::?\d\d)?)$/.exec(text);
  if (!match) return undefined;
  const [, date, time, fraction = '', zone] = match as unknown as [string, string, string, string | undefined, string];
  const offset = zone === 'Z' ? zone : zone.length === 3 ? `${zone}:00` : zone;
  return new Instant(BigInt(Date.parse(`${date}T${time}${offset}`)) * 1000n + BigInt(fraction.padEnd(6, '0')));
};

/** Part of a result. A tuple's parts go by number: here it is a message, in the same order. */
const part = (of: unknown, key: number | string): unknown => {
  const values = typeof key === 'number' && !Array.isArray(of) ? Object.values(of as object) : of;
  return (values as Record<string | number, unknown>)[key];
};

const microsOf = (seconds: number): bigint => BigInt(Math.round(seconds * 1e6));

/** Resolves the `$` forms of one case, whose instants all refer to the moment its fixture was made. */
export class Reader {
  readonly #now: bigint;
  readonly #hour: bigint;

  constructor(now: Instant) {
    this.#now = now.micros;
    this.#hour = now.micros - (now.micros % HOUR);
  }

  /** @param results results of earlier steps, for `$result`. */
  read(value: Json, results: readonly unknown[] = []): Golden {
    if (typeof value === 'string') {
      const generated = /^<(timestamp|uuid|id|size)>$/.exec(value)?.[1];
      return generated === undefined ? value : new Generated(generated as Generated['kind']);
    }
    if (value === null || typeof value !== 'object') return value;
    if (Array.isArray(value)) return value.map((each) => this.read(each, results));
    const form = this.#form(value, results);
    if (form !== undefined) return form;
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, this.read(each, results)]));
  }

  #form(value: { [key: string]: Json }, results: readonly unknown[]): Golden | undefined {
    const [name] = Object.keys(value);
    const content = name === undefined ? null : value[name]!;
    switch (name) {
      case '$now_minus_seconds':
        return new Instant(this.#now - microsOf(content as number));
      case '$hour_minus_hours':
        return new Instant(this.#hour - BigInt(content as number) * HOUR + microsOf(value['plus_seconds'] as number));
      case '$ts':
        return parseInstant(content as string)!;
      case '$iso_text_of':
        return new IsoText(this.read(content) as Instant);
      case '$hour_key': {
        const [prefix, hours] = content as [string, number];
        const hour = new Instant(this.#hour - BigInt(hours) * HOUR).isoText;
        return `${prefix}${hour.slice(0, 19).replace('T', ' ')}+00`;
      }
      case '$whole_days_since':
        return new DaysSince(this.read(content) as Instant);
      case '$json':
        return new JsonColumn(content);
      case '$decimal':
        return new Decimal(content as string);
      case '$bigint':
        return BigInt(content as string);
      case '$float':
        return content === 'nan' ? Number.NaN : content === '-inf' ? -Infinity : Infinity;
      case '$result': {
        const path = content as (number | string)[];
        return path.reduce<unknown>((at, key) => part(at, key), results) as Golden;
      }
      default:
        return undefined;
    }
  }
}
