import { type Actual, Row } from './compare.ts';
import { Generated, type Golden, isMap } from './values.ts';

/**
 * The part of a response that stands for what the driver's method returned, found by the shape of the expected value:
 * a list is the only field, or the response itself where the method returned a tuple; a map is the response if it has
 * those fields, else the message in it; a bare value is the first field of its type.
 */
export const returned = (expected: Golden, response: Row, kind: 'read' | 'write' | 'compute'): Actual => {
  const values = response.values;
  const row = values.find((each) => each instanceof Row);
  if (expected === null) {
    // A write that returned nothing answers what is useful next.
    return kind === 'write' ? null : (values[0] ?? null);
  }
  if (Array.isArray(expected)) {
    if (row) return row;
    return values.length === 1 ? values[0]! : response;
  }
  if (isMap(expected)) return Object.keys(expected).every((key) => response.fields.has(key)) ? response : (row ?? null);
  if (typeof expected === 'number' || (expected instanceof Generated && expected.kind === 'id')) {
    const numbers = values.filter((each) => typeof each === 'number' || typeof each === 'bigint');
    return response.fields.get('rows_affected') ?? numbers[0] ?? null;
  }
  const affected = response.fields.get('rows_affected');
  if (typeof expected === 'boolean' && typeof affected === 'bigint') return affected > 0n;
  const type = expected instanceof Generated ? 'string' : typeof expected;
  return values.find((each) => typeof each === type) ?? null;
};

/** An answer as later steps refer to it. */
export const recorded = (actual: Actual): unknown =>
  actual instanceof Row
    ? Object.fromEntries([...actual.fields].map(([name, value]) => [name, recorded(value)]))
    : Array.isArray(actual)
      ? actual.map(recorded)
      : actual;
