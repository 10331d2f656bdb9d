import { BinaryWriter } from '@bufbuild/protobuf/wire';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Bytes } from '../../src/database/bytes.ts';

const length = fc.oneof(fc.nat({ max: 300 }), fc.constantFrom(127, 128, 16_383, 16_384, 2_097_151, 2_097_152));
const piece = fc.record({ length, guess: fc.integer({ min: 1, max: 5 }), nested: fc.option(length) });

test('whatever is guessed of a length, it is written as protobuf writes it', () => {
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 4 }), fc.nat({ max: 64 }), (pieces, size) => {
      const out = new Bytes(size);
      const known = new BinaryWriter();
      for (const { length: outer, guess, nested } of pieces) {
        const content = Buffer.alloc(outer, outer);
        out.reserve(5);
        const start = out.open(guess);
        out.all(content);
        const inside = new BinaryWriter().raw(content);
        if (nested !== null) {
          out.reserve(1);
          const within = out.open();
          out.all(Buffer.alloc(nested, 7));
          out.close(within);
          inside.bytes(Buffer.alloc(nested, 7));
        }
        const taken = out.close(start, guess);
        const whole = inside.finish();
        known.bytes(whole);
        expect(taken).toBe(new BinaryWriter().uint32(whole.length).finish().length);
      }
      expect(out.written().equals(known.finish())).toBe(true);
    }),
    { numRuns: 200 },
  );
});
