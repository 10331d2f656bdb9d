import type { Call } from './format.ts';
import { Decimal, type Golden, isMap } from './values.ts';
import type { GoldenRow } from './world.ts';

/** A call that the original has not sent yet. */
export interface Queued {
  readonly call: Call;
  readonly args: GoldenRow;
}

/** A score may be any number; here it is the decimal that the number is written as. */
const withDecimalScore = (verdict: GoldenRow): GoldenRow => {
  const score = verdict['integrity_score'];
  return typeof score === 'number' ? { ...verdict, integrity_score: new Decimal(String(score)) } : verdict;
};

const DRIVER = 'policy_rules_driver';

/**
 * What the original's `policy_rules_driver` queues until a flush, or until a query needs it, in the order it is then
 * sent. Ours runs at once, so the order is the caller's; here the test is the caller, and like a caller it changes an
 * object that is not sent yet by sending the changed one.
 */
export class Queue {
  #queued: { readonly call: Call; args: GoldenRow }[] = [];
  /** The rule that was fetched or made last. */
  #rule: GoldenRow = {};
  /** What is queued to make that rule, or to change it. */
  #open: { readonly call: Call; args: GoldenRow } | undefined;

  /** Takes a call that is not sent yet; false when it goes at once. */
  take(driver: string, call: Call, args: GoldenRow): boolean {
    if (driver !== DRIVER) return false;
    switch (call.method) {
      case 'create_rule':
        this.#make(call, args, args);
        return true;
      case 'add_rule':
        this.#make(call, args, args['rule']!);
        return true;
      case 'create_integrity':
        this.#push(call, withDecimalScore(args));
        return true;
      case 'add_integrity': {
        const { integrity } = args;
        this.#push(call, isMap(integrity) ? { ...args, integrity: withDecimalScore(integrity) } : args);
        return true;
      }
      case 'set_fields':
        this.#change(call, args['fields'] as GoldenRow);
        return true;
      case 'retire':
        this.#push(call, { ...this.#rule, ...args });
        this.#open = undefined;
        return true;
      case 'fetch_rule_by_id':
        this.#rule = { tenant_id: args['tenant_id']!, rule_id: args['rule_id']! };
        return false;
      default:
        return false;
    }
  }

  /** Empties the queue: rules before verdicts, otherwise in order. */
  drain(): readonly Queued[] {
    const isVerdict = ({ call }: Queued): boolean => call.method.endsWith('_integrity');
    const queued = [...this.#queued.filter((each) => !isVerdict(each)), ...this.#queued.filter(isVerdict)];
    this.#queued = [];
    this.#open = undefined;
    return queued;
  }

  #push(call: Call, args: GoldenRow): void {
    this.#queued.push({ call, args });
  }

  #make(call: Call, args: GoldenRow, rule: Golden): void {
    this.#push(call, args);
    this.#open = this.#queued.at(-1);
    if (isMap(rule)) this.#rule = { tenant_id: rule['tenant_id'] ?? '', rule_id: rule['id'] ?? '' };
  }

  #change(call: Call, fields: GoldenRow): void {
    if (Object.keys(fields).length === 0) return;
    if (!this.#open) {
      this.#push(call, { ...this.#rule, updates: {} });
      this.#open = this.#queued.at(-1)!;
    }
    const open = this.#open;
    const inner = { create_rule: undefined, add_rule: 'rule', set_fields: 'updates' }[open.call.method];
    const changed = inner === undefined ? open.args : (open.args[inner] as GoldenRow);
    open.args = inner === undefined ? { ...changed, ...fields } : { ...open.args, [inner]: { ...changed, ...fields } };
  }
}
