/** A power of two, so that scaling by it rounds nothing. */
const SCALE = 2 ** 664;

const double = (value: number): string => `'${value}'::double precision`;

/** Sums of any number of smaller values stay far below the largest double. */
const LARGE = double(1e270);

/**
 * SQL: the sum of doubles, 0 for none. Where `sum` would fail for a result beyond doubles, this one is infinite: large
 * values are added up scaled down, beside all others.
 *
 * @param filter condition of the rows that count.
 */
export const sumOf = (value: string, filter = 'true'): string => {
  const small = `sum(${value}) filter (where ${filter} and abs(${value}) < ${LARGE})`;
  const large = `sum(${value} / ${double(SCALE)}) filter (where ${filter} and abs(${value}) >= ${LARGE})`;
  return `coalesce(${small}, 0) + case
    when ${large} is null then 0
    when abs(${large}) <= ${double(Number.MAX_VALUE / SCALE)} then ${large} * ${double(SCALE)}
    when ${large} = 'NaN' then 'NaN'
    when ${large} > 0 then 'Infinity'
    else '-Infinity'
  end`;
};
