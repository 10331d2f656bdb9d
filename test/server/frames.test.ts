import fc from 'fast-check';
import { expect, test } from 'vitest';
import { framed } from '../../src/server/frames.ts';

/** The messages of a body, as a client reads them. */
const read = (body: Buffer): Buffer[] => {
  const found: Buffer[] = [];
  for (let at = 0; at < body.length; ) {
    expect(body[at]).toBe(0);
    const length = body.readUInt32BE(at + 1);
    found.push(body.subarray(at + 5, at + 5 + length));
    at += 5 + length;
  }
  return found;
};

test('messages of any length come back as they went, and no piece is larger than it has to be', () => {
  const length = fc.oneof(fc.nat(300), fc.constantFrom(0, 65_530, 65_531, 65_532, 200_000));
  fc.assert(
    fc.property(fc.array(length, { maxLength: 600 }), (lengths) => {
      const messages = lengths.map((each, index) => Buffer.alloc(each, index % 251));
      const pieces = [...framed(messages)];
      expect(Buffer.concat(read(Buffer.concat(pieces))).equals(Buffer.concat(messages))).toBe(true);
      expect(read(Buffer.concat(pieces)).map(({ length: found }) => found)).toEqual(lengths);
      for (const piece of pieces) expect(piece.length <= 65_536 || read(Buffer.from(piece)).length === 1).toBe(true);
      expect(pieces.length).toBeLessThanOrEqual(lengths.length);
    }),
    { numRuns: 40 },
  );
  expect([...framed(Array.from({ length: 500 }, () => Buffer.alloc(100)))]).toHaveLength(1);
});
