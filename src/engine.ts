import { executionAsyncResource } from 'node:async_hooks';
import { PerformanceObserver } from 'node:perf_hooks';
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';

/** What is never to be cleared away. */
const kept: object[] = [];

/** What the engine has been told, by option. */
const told = new Map<string, number>();

const tell = (option: string, value: number): void => {
  if (told.get(option) === value) return;
  told.set(option, value);
  setFlagsFromString(`--${option}=${value}`);
};

/** By how much the young generation grows as soon as much of it outlives a clearing: not at all, or to the double. */
const YOUNG_GROWS = 'semi-space-growth-factor';
const STAYS = 1;
const DOUBLES = 2;

/** What is left behind before the heap is cleared, in percent of what is in use. */
const HEAP_GROWS = 'heap-growing-percent';

const MB = 1024 * 1024;

/** How far the heap may go for the calls that are under way. */
interface Room {
  /** Bytes up to which the young generation grows. */
  readonly young: number;
  /** {@link HEAP_GROWS}; left to itself the engine takes several times as much. */
  readonly percent: number;
}

/** What calls leave behind is soon gone: more room than this saves no time, and takes memory. */
const FEW: Room = { young: 8 * MB, percent: 50 };
/** So many calls at once outlive what is enough for fewer: a fifth of the time would go into clearing it over and over. */
const MANY: Room = { young: 16 * MB, percent: 100 };
const MANY_CALLS = 100;

/** Bytes of the young generation as it is now. */
const youngBytes = (): number => {
  const young = getHeapSpaceStatistics().find(({ space_name: name }) => name === 'new_space')!;
  return young.space_used_size + young.space_available_size;
};

/**
 * Sets the engine up for a start, and for a process that runs long; to be called before anything else.
 *
 * Node gives each tick keys that it computes. The engine does that fast for objects of the shape that it has seen first, and
 * five times slower once it has seen another; a shape that no object has is cleared away, and then the next one is another. So
 * whenever the heap was cleared between two ticks all later ones were slow, and calls cost a tenth more until the process
 * ended. One tick is kept, and with it the shape.
 */
export const prepareEngine = (): void => {
  process.nextTick(() => kept.push(executionAsyncResource()));
  // What a start makes stays, so that the young generation would grow to its largest for what never comes again.
  tell(YOUNG_GROWS, STAYS);
};

/**
 * From now on there are calls, and the heap grows as they need it.
 *
 * @param underWay how many there are at this moment.
 */
export const growWithCalls = (underWay: () => number): void => {
  const look = (): void => {
    const { young, percent } = underWay() > MANY_CALLS ? MANY : FEW;
    tell(HEAP_GROWS, percent);
    tell(YOUNG_GROWS, youngBytes() * DOUBLES <= young ? DOUBLES : STAYS);
  };
  look();
  new PerformanceObserver(look).observe({ entryTypes: ['gc'] });
};
