import { afterEach, expect, test, vi } from 'vitest';
import { Health } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { useSidecar } from '../support/use.ts';

const sidecar = useSidecar();

afterEach(() => vi.restoreAllMocks());

/** Listeners that this process has added to signals and not taken away again. */
const countListeners = (): (() => number) => {
  let count = 0;
  const { addEventListener, removeEventListener } = EventTarget.prototype;
  vi.spyOn(EventTarget.prototype, 'addEventListener').mockImplementation(function (this: EventTarget, ...args) {
    if (this instanceof AbortSignal) count += 1;
    addEventListener.apply(this, args);
  });
  vi.spyOn(EventTarget.prototype, 'removeEventListener').mockImplementation(function (this: EventTarget, ...args) {
    if (this instanceof AbortSignal) count -= 1;
    removeEventListener.apply(this, args);
  });
  return () => count;
};

const first = async <T>(stream: AsyncIterable<T>): Promise<void> => {
  for await (const _message of stream) return;
};

// Story: each transaction that a stream held, and each that watched the health, left something on the one signal that tells of
// the end of the process, for as long as the process lived; and whoever came next walked along all of it.
test.each([
  ['held transactions', () => first(sidecar.grpc.stream(TransactionService.method.hold, {}))],
  ['watches of the health', () => first(sidecar.grpc.stream(Health.method.watch, {}))],
  ['watches of what is not known', () => first(sidecar.grpc.stream(Health.method.watch, { service: 'x' }))],
])('%s leave no listener behind', async (_name, call) => {
  await call();
  const listeners = countListeners();
  for (let count = 0; count < 20; count += 1) await call();
  // The server hears of the last end in its own time.
  await vi.waitFor(() => expect(listeners()).toBeLessThan(5));
});
