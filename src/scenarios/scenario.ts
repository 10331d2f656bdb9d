import type { JsonValue } from '@bufbuild/protobuf';

/** How many rows an answer may have. */
export type Rows = number | { readonly at_least?: number; readonly at_most?: number };

/** The error that a call has to be refused with; what is not said is not looked at. */
export interface ExpectedError {
  readonly code: string;
  readonly reason?: string;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly fields?: readonly string[];
  readonly retry?: boolean;
  readonly preconditions?: number;
}

/** What a call has to bring; nothing said: that it succeeds. */
export interface Expectation {
  readonly response?: JsonValue;
  readonly rows?: Rows;
  readonly error?: ExpectedError;
}

/** A call, as the file has it. */
export interface CallStep {
  readonly call: string;
  readonly request?: Readonly<Record<string, JsonValue>>;
  readonly transaction?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly take?: number;
  readonly keep?: string;
  readonly within_ms?: number;
  readonly expect?: Expectation;
  readonly capture?: Readonly<Record<string, string>>;
}

/** The end of a stream that was kept open. */
export interface LeaveStep {
  readonly leave: string;
}

export type Step = CallStep | LeaveStep;

/** One thing that holds of a sidecar, as calls and what they have to bring: `docs/contract-scenarios.md`. */
export interface Scenario {
  /** That of its file. */
  readonly name: string;
  readonly about: string;
  readonly commits?: boolean;
  readonly steps: readonly Step[];
  readonly cleanup?: readonly Step[];
}

/** Whether it is a call. */
export const isCall = (step: Step): step is CallStep => 'call' in step;
