import fc from 'fast-check';
import { expect, test } from 'vitest';
import { framed } from '../../src/server/frames.ts';
import { messageIn, PREFIX } from '../../src/statements/grpc-frame.ts';

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

test('a message that has been made in its frame is sent in it, by itself or with others', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 70_000 }), fc.nat(20), (content, around) => {
      const memory = Buffer.alloc(around + PREFIX + content.length + around, 255);
      memory.set(content, around + PREFIX);
      const frame = memory.subarray(around, around + PREFIX + content.length);
      const message = messageIn(frame);
      expect(message.equals(content)).toBe(true);
      const [alone, ...rest] = [...framed([message])];
      expect(alone).toBe(frame);
      expect(rest).toEqual([]);
      expect(read(Buffer.from(alone!))).toEqual([Buffer.from(content)]);
      const together = Buffer.concat([...framed([message, Buffer.from('other')])]);
      expect(read(together)).toEqual([Buffer.from(content), Buffer.from('other')]);
      expect(memory.subarray(0, around).every((byte) => byte === 255)).toBe(true);
      expect(memory.subarray(around + frame.length).every((byte) => byte === 255)).toBe(true);
    }),
    { numRuns: 100 },
  );
});
