/** Each row of a stream as the response that holds it in its one field. */
export async function* each<K extends string, T>(rows: AsyncIterable<T>, field: K): AsyncGenerator<Record<K, T>> {
  for await (const row of rows) yield { [field]: row } as Record<K, T>;
}
