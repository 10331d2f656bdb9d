import { placementOf } from './placement.ts';

/** A node of a parse tree of PostgreSQL: one key that names its kind, or fields. */
type Node = Readonly<Record<string, unknown>>;

/** One mention of a table in a statement. */
interface Mention {
  readonly table: string;
  /** Index of what its tenant has been found to be the same as. */
  same: number;
}

/** What a statement mentions. */
export interface Mentions {
  readonly tables: readonly string[];
  /** Schema-qualified functions that it calls. */
  readonly functions: readonly string[];
  /** Tables that are with their tenants, and that no condition ties to the one tenant of the statement. */
  readonly untied: readonly string[];
}

/** Names of the tables that columns of a query may belong to; undefined for what is no table. */
class Scope {
  readonly names = new Map<string, Mention | undefined>();
  readonly #outer: Scope | undefined;

  constructor(outer?: Scope) {
    this.#outer = outer;
  }

  find(name: string): Mention | undefined {
    return this.names.has(name) ? this.names.get(name) : this.#outer?.find(name);
  }

  /** Of a column without a table's name. */
  only(): Mention | undefined {
    return this.names.size === 1 ? [...this.names.values()][0] : undefined;
  }
}

const isNode = (value: unknown): value is Node => typeof value === 'object' && value !== null;
const list = (value: unknown): Node[] => (value as Node[] | undefined) ?? [];
const strings = (value: unknown): string[] =>
  list(value).flatMap((each) => (each['String'] ? [(each['String'] as { readonly sval: string }).sval] : []));

/** Reads the parse tree of one statement. */
class Reader {
  readonly mentions: Mention[] = [];
  readonly functions = new Set<string>();
  /** Groups of what is the same; true where a parameter or a constant is among it. */
  readonly #known: boolean[] = [];

  /** @returns where its columns belong. */
  query(statement: Node, outer?: Scope): Scope {
    const [body] = Object.values(statement) as [Node];
    const scope = new Scope(outer);
    const { withClause, fromClause, usingClause, larg, rarg, relation, whereClause, selectStmt, ...rest } = body;
    for (const { CommonTableExpr: cte } of list((withClause as Node | undefined)?.['ctes'])) {
      this.query((cte as Node)['ctequery'] as Node, outer);
    }
    for (const side of [larg, rarg]) if (side) this.query({ SelectStmt: side }, outer);
    const target = relation && this.#table(relation as Node, scope);
    for (const item of [...list(fromClause), ...list(usingClause)]) this.#item(item, scope);
    this.#condition(whereClause, scope);
    if (selectStmt) this.#inserted(body, this.query(selectStmt as Node, outer), target as Mention | undefined);
    this.#walk(rest, scope);
    return scope;
  }

  /** The tenant of inserted rows is what stands in its place. */
  #inserted({ cols, selectStmt }: Node, scope: Scope, target: Mention | undefined): void {
    const placement = target && placementOf(target.table);
    if (placement?.at !== 'tenant') return;
    const at = list(cols).findIndex((col) => (col['ResTarget'] as Node)['name'] === placement.column);
    const select = (selectStmt as Node)['SelectStmt'] as Node;
    const values = list(select['valuesLists']);
    const row = values.length === 1 ? list((values[0]!['List'] as Node)['items']) : list(select['targetList']);
    const value = row[at];
    this.#equal(target!, this.#operand((value?.['ResTarget'] as Node | undefined)?.['val'] ?? value, scope));
  }

  #table({ schemaname, relname, alias }: Node, scope: Scope): Mention | undefined {
    const name = ((alias as Node | undefined)?.['aliasname'] ?? relname) as string;
    // What has no schema is a common table expression.
    const mention = schemaname ? { table: `${schemaname}.${relname}`, same: this.#known.push(false) - 1 } : undefined;
    if (mention) this.mentions.push(mention);
    scope.names.set(name, mention);
    return mention;
  }

  #item(item: Node, scope: Scope): void {
    const [kind, body] = Object.entries(item)[0] as [string, Node];
    switch (kind) {
      case 'RangeVar':
        this.#table(body, scope);
        return;
      case 'JoinExpr':
        this.#item(body['larg'] as Node, scope);
        this.#item(body['rarg'] as Node, scope);
        this.#condition(body['quals'], scope);
        return;
      case 'RangeSubselect':
        this.query(body['subquery'] as Node, scope);
        break;
      default:
        this.#walk(body, scope);
    }
    scope.names.set(((body['alias'] as Node | undefined)?.['aliasname'] ?? '') as string, undefined);
  }

  /** What must hold of every row that the statement sees. */
  #condition(condition: unknown, scope: Scope): void {
    if (!isNode(condition)) return;
    const { BoolExpr: all, A_Expr: comparison } = condition as { BoolExpr?: Node; A_Expr?: Node };
    if (all?.['boolop'] === 'AND_EXPR') {
      for (const each of list(all['args'])) this.#condition(each, scope);
      return;
    }
    if (comparison?.['kind'] === 'AEXPR_OP' && strings(comparison['name'])[0] === '=') {
      const left = this.#operand(comparison['lexpr'], scope);
      const right = this.#operand(comparison['rexpr'], scope);
      if (left !== 'other' && left !== 'given') this.#equal(left, right);
      else if (right !== 'other' && right !== 'given') this.#equal(right, left);
    }
    this.#walk(condition, scope);
  }

  /** A tenant column, a value that is given, or neither. */
  #operand(node: unknown, scope: Scope): Mention | 'given' | 'other' {
    if (!isNode(node)) return 'other';
    if (node['ParamRef'] || node['A_Const']) return 'given';
    if (node['TypeCast']) return this.#operand((node['TypeCast'] as Node)['arg'], scope);
    const names = strings((node['ColumnRef'] as Node | undefined)?.['fields']);
    const column = names.at(-1);
    const mention = names.length === 1 ? scope.only() : scope.find(names.at(-2) ?? '');
    const placement = mention && placementOf(mention.table);
    return placement?.at === 'tenant' && placement.column === column ? mention! : 'other';
  }

  #equal(mention: Mention, to: Mention | 'given' | 'other'): void {
    if (to === 'other') return;
    if (to === 'given') this.#known[mention.same] = true;
    else {
      const { same } = to;
      if (this.#known[same]) this.#known[mention.same] = true;
      for (const each of this.mentions) if (each.same === same) each.same = mention.same;
    }
  }

  #walk(value: unknown, scope: Scope): void {
    if (Array.isArray(value)) for (const each of value) this.#walk(each, scope);
    if (!isNode(value) || Array.isArray(value)) return;
    for (const [kind, body] of Object.entries(value)) {
      if (kind === 'funcname' && strings(body).length > 1) this.functions.add(strings(body).join('.'));
      if (/^(?:Select|Insert|Update|Delete)Stmt$/.test(kind)) this.query({ [kind]: body }, scope);
      else this.#walk(body, scope);
    }
  }

  untied(): string[] {
    return this.mentions.flatMap(({ table, same }) =>
      placementOf(table).at === 'tenant' && !this.#known[same] ? [table] : [],
    );
  }
}

/**
 * What a statement mentions.
 *
 * @param tree as `libpg-query` reads its text.
 */
export const mentionsOf = (tree: unknown): Mentions => {
  const reader = new Reader();
  const [first] = list((tree as Node)['stmts']);
  reader.query(first!['stmt'] as Node);
  return {
    tables: [...new Set(reader.mentions.map(({ table }) => table))],
    functions: [...reader.functions],
    untied: [...new Set(reader.untied())],
  };
};
