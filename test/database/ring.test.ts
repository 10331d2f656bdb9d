import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Link, Ring } from '../../src/database/ring.ts';

test('links come and go in any order: the ring is a list from which each takes itself out', () => {
  const steps = fc.array(fc.oneof(fc.constant('add' as const), fc.nat({ max: 20 })));
  fc.assert(
    fc.property(steps, (done) => {
      const ring = new Ring<Link>();
      const all: Link[] = [];
      let model: Link[] = [];
      for (const step of done) {
        if (step === 'add') {
          const link = new Link();
          all.push(link);
          ring.add(link);
          model.push(link);
        } else {
          // One that has left already may leave again.
          all[step]?.leave();
          model = model.filter((link) => link !== all[step]);
        }
        expect([...ring].map((link) => all.indexOf(link))).toEqual(model.map((link) => all.indexOf(link)));
        expect(ring.first).toBe(model[0]);
        for (const [index, link] of model.entries()) expect(ring.behind(link)).toBe(model[index + 1]);
        for (const link of all) expect(link.isAlone).toBe(!model.includes(link));
      }
    }),
  );
});
