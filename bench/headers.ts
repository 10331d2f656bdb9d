/** Request headers as HTTP/2 compresses them, as far as a client of few headers needs it. */

/** Bytes of the peer's header table that are used; every peer has 4096. */
const TABLE_BYTES = 3_000;

const text = (value: string): Buffer => {
  const bytes = Buffer.from(value);
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const length = [127];
  let left = bytes.length - 127;
  for (; left >= 128; left >>= 7) length.push((left & 127) | 128);
  return Buffer.concat([Buffer.from([...length, left]), bytes]);
};

/** Header blocks; what was sent before is one byte, as of any gRPC client. */
export class HeaderTable {
  readonly #added = new Map<string, number>();
  #bytes = 0;

  block(headers: Readonly<Record<string, string>>): Buffer {
    const parts = Object.entries(headers).map(([name, value]) => {
      const key = `${name}: ${value}`;
      const added = this.#added.get(key);
      // Static entries are 1 to 61; the youngest entry added is 62. Fewer than 60 are ever added: one byte holds them.
      if (added !== undefined) return Buffer.from([0x80 | (62 + this.#added.size - 1 - added)]);
      const size = name.length + value.length + 32;
      const remember = this.#bytes + size <= TABLE_BYTES;
      if (remember) {
        this.#added.set(key, this.#added.size);
        this.#bytes += size;
      }
      return Buffer.concat([Buffer.from([remember ? 0x40 : 0]), text(name), text(value)]);
    });
    return Buffer.concat(parts);
  }

  /** Changes when blocks made before say something else from now on. */
  get version(): number {
    return this.#added.size;
  }
}
