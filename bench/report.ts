/** What was found: on the terminal as it comes, in the end in RESULTS.md and results.json. */
import { writeFile } from 'node:fs/promises';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import type { Rounds } from './rounds.ts';

/** A figure that must not be less, or more, than its bound. */
interface Target {
  readonly what: string;
  readonly value: number | undefined;
  readonly unit: string;
  readonly relation: '>=' | '<=';
  readonly bound: number;
}

interface Table {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

const shown = (value: number | undefined, digits: number): string =>
  value === undefined || Number.isNaN(value) ? '' : value.toFixed(digits);

const markdown = (columns: readonly string[], rows: readonly (readonly string[])[]): string =>
  [columns, columns.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');

export class Report {
  readonly #targets: Target[] = [];
  readonly #tables: Table[] = [];
  readonly #about: Record<string, string> = {};

  /** A line about the run itself. */
  about(what: string, value: string): void {
    this.#about[what] = value;
    console.log(`${what}: ${value}`);
  }

  /** A figure that has a target; undefined: what it is compared with is not on this machine. */
  target(what: string, value: number | undefined, relation: '>=' | '<=', bound: number, unit = ''): void {
    const target = { what, value, unit, relation, bound };
    this.#targets.push(target);
    console.log(this.#row(target).join('  '));
  }

  table(title: string, columns: readonly string[], rows: readonly (readonly string[])[]): void {
    this.#tables.push({ title, columns, rows });
    console.log(`\n${title} (load ${loadavg()[0]!.toFixed(1)})\n${markdown(columns, rows)}\n`);
  }

  /** Rates of all sides, beside that of the first. */
  rates(title: string, rounds: Rounds): void {
    const [first] = rounds.names;
    const columns = ['', 'a second', 'spread', `${first} is`, 'server CPU, µs', 'p50, ms', 'p99, ms'];
    const rows = rounds.names.map((name) => {
      const { rps, spread, cpuUs, p50, p99 } = rounds.summary(name)!;
      const times = name === first ? '' : `${shown(rounds.ratio(first!, name), 2)}x`;
      return [
        name,
        shown(rps, 0),
        `±${shown(spread * 100, 0)} %`,
        times,
        shown(cpuUs, 0),
        shown(p50, 2),
        shown(p99, 2),
      ];
    });
    this.table(title, columns, rows);
  }

  /** Writes both files into `folder`. */
  async write(folder: string): Promise<void> {
    const targets = markdown(
      ['', 'found', 'target', ''],
      this.#targets.map((target) => this.#row(target)),
    );
    const tables = this.#tables.map(({ title, columns, rows }) => `## ${title}\n\n${markdown(columns, rows)}\n`);
    const about = Object.entries(this.#about).map(([what, value]) => `- ${what}: ${value}`);
    const text = `# What the sidecar costs beside its peers

Written by \`npm run bench\`. Generator, servers and database share one machine, so read the ratios: medians of rounds that
take turns, after ten seconds for each side to warm up. A figure of one run says nothing about one of another run. Where a
call without database and pgbench are put one after the other, that is reckoned: the most that a call through the sidecar
could reach if what it does between the two cost nothing.

${about.join('\n')}

## Targets

${targets}

${tables.join('\n')}`;
    await writeFile(join(folder, 'RESULTS.md'), text);
    const json = { about: this.#about, targets: this.#targets, tables: this.#tables };
    await writeFile(join(folder, 'results.json'), `${JSON.stringify(json, null, 2)}\n`);
  }

  #row({ what, value, unit, relation, bound }: Target): string[] {
    const suffix = unit && ` ${unit}`;
    const digits = bound >= 20 ? 0 : 2;
    const verdict = value === undefined ? 'not measured' : this.#met(value, relation, bound) ? 'met' : 'missed';
    const sign = relation === '>=' ? '≥' : '≤';
    return [
      what,
      `${shown(value, digits)}${value === undefined ? '' : suffix}`,
      `${sign} ${bound.toLocaleString('en')}${suffix}`,
      verdict,
    ];
  }

  #met(value: number, relation: '>=' | '<=', bound: number): boolean {
    return relation === '>=' ? value >= bound : value <= bound;
  }
}

/** The machine, in a line. */
export const machine = (): string =>
  `${cpus().length} cores (${cpus()[0]?.model.trim()}), load ${loadavg()[0]!.toFixed(1)} at the start`;
