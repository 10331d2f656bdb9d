/** Categories of policies, strongest first. */
export const CATEGORIES = ['SAFETY', 'PRIVACY', 'OPERATIONAL', 'ROUTING', 'CUSTOM'] as const;
export type Category = (typeof CATEGORIES)[number];

/** Actions of policies. */
export type Action = 'deny' | 'allow' | 'escalate' | 'route' | 'log' | 'alert';

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

/** Rank of a category; 0 for anything else. */
export const categoryPriority = (category: string): number => CATEGORY_PRIORITY.get(category) ?? 0;

/** Restrictiveness of an action; 0 for anything else. */
export const actionPrecedence = (action: string): number => ACTION_PRECEDENCE.get(action) ?? 0;
