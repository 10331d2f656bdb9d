/** Categories of policies, strongest first. */
export const CATEGORIES = ['SAFETY', 'PRIVACY', 'OPERATIONAL', 'ROUTING', 'CUSTOM'] as const;
export type Category = (typeof CATEGORIES)[number];

/** Actions of policies, in the order of their declaration. */
export const ACTIONS = ['deny', 'allow', 'escalate', 'route', 'log', 'alert'] as const;
export type Action = (typeof ACTIONS)[number];

const CATEGORY_PRIORITY = new Map<string, number>([
  ['SAFETY', 100],
  ['PRIVACY', 90],
  ['OPERATIONAL', 50],
  ['ROUTING', 30],
  ['CUSTOM', 10],
]);

const ACTION_PRECEDENCE = new Map<string, number>([
  ['deny', 100],
  ['escalate', 80],
  ['route', 50],
  ['allow', 10],
  ['log', 5],
  ['alert', 5],
]);

const KEYWORDS = new Set([
  ...['policy', 'rule', 'when', 'then', 'import', 'deny', 'allow', 'escalate', 'route', 'to'],
  ...['and', 'or', 'not', 'true', 'false', 'priority'],
  ...CATEGORIES,
]);

const OPERATOR_CHARACTERS = '=!<>(){}:,.';

/** Rank of a category; 0 for anything else. */
export const categoryPriority = (category: string): number => CATEGORY_PRIORITY.get(category) ?? 0;

/** Restrictiveness of an action; 0 for anything else. */
export const actionPrecedence = (action: string): number => ACTION_PRECEDENCE.get(action) ?? 0;

/** True for a word of the language, case-sensitive. */
export const isKeyword = (word: string): boolean => KEYWORDS.has(word);

/** True for a run of the operator characters in their own order, the empty text among them. */
export const isOperator = (text: string): boolean => OPERATOR_CHARACTERS.includes(text);

/** True for a category, case-sensitive. */
export const isCategory = (word: string): boolean => CATEGORY_PRIORITY.has(word);

/** True for an action, case-sensitive. */
export const isAction = (word: string): boolean => ACTION_PRECEDENCE.has(word);
