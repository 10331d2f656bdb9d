const FALSY = ['null', 'false', '0', '""', '[]', '{}'].map((json) => `'${json}'::jsonb`).join(', ');

/** SQL: the document, or an empty one where it is NULL or what the original takes for nothing. */
export const documentOr = (empty: '{}' | '[]', column: string): string =>
  `case when ${column} is null or ${column} in (${FALSY}) then '${empty}'::jsonb else ${column} end`;

/** SQL: elements of the document, 0 where it is no list. */
export const elementsOf = (column: string): string =>
  `case when jsonb_typeof(${column}) = 'array' then jsonb_array_length(${column}) else 0 end`;
