import { randomUUID } from 'node:crypto';
import type { JsonValue } from '@bufbuild/protobuf';

const NAMES = /\{\{([\w.]+)\}\}/g;
/** What every scenario has without having captured it. */
const GIVEN = /^(?:now|run|uuid\.\w+)$/;

/** Names that a value mentions and that have to be captured. */
export const mentioned = (value: unknown): string[] =>
  [...(JSON.stringify(value) ?? '').matchAll(NAMES)].map(([, name]) => name!).filter((name) => !GIVEN.test(name));

/** What `{{name}}` stands for in one run of one scenario. */
export class Variables {
  readonly #values = new Map<string, JsonValue>([
    ['now', new Date().toISOString()],
    ['run', randomUUID().slice(0, 8)],
  ]);

  set(name: string, value: JsonValue): void {
    this.#values.set(name, value);
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** The value with everything in its place; a text that is nothing but a name becomes what it stands for. */
  fill<T>(value: T): T {
    return this.#fill(value) as T;
  }

  #fill(value: unknown): unknown {
    if (typeof value === 'string') {
      const [, whole] = /^\{\{([\w.]+)\}\}$/.exec(value) ?? [];
      return whole === undefined ? value.replace(NAMES, (_, name) => String(this.#get(name))) : this.#get(whole);
    }
    if (Array.isArray(value)) return value.map((each) => this.#fill(each));
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, this.#fill(each)]));
  }

  #get(name: string): JsonValue {
    if (!this.#values.has(name) && name.startsWith('uuid.')) this.#values.set(name, randomUUID());
    return this.#values.get(name)!;
  }
}
