/** Cases of connectrpc's judge that fail, and why they may. */
export interface KnownFailure {
  readonly why: string;
  /** All that the judge may say of them. */
  readonly says: RegExp;
  /** True where it is a matter of moments whether they fail; all others must. */
  readonly sometimes?: true;
  /** Names as the judge takes them, by the port that it calls. */
  readonly cases: Readonly<Record<'grpc' | 'http', readonly string[]>>;
}

const DETAILS =
  /actual error contain 1 details; expecting 0|message type "google\.rpc\.ErrorInfo" could not be resolved/;

const TOO_LARGE = ['request', 'first-request', 'subsequent-request'].map(
  (which) => `Server Message Size/**/${which}-exceeds-server-limit`,
);

export const KNOWN_FAILURES: readonly KnownFailure[] = [
  {
    why: 'every refusal of this program carries its ErrorInfo, and the judge wants a refusal of its own to carry nothing',
    says: DETAILS,
    cases: {
      grpc: [
        ...TOO_LARGE,
        ...['no-request', 'multiple-requests', 'unexpected-compression'].map(
          (name) => `gRPC Unexpected Requests/**/${name}`,
        ),
      ],
      http: [
        ...TOO_LARGE,
        ...['Connect', 'gRPC', 'gRPC-Web'].flatMap((protocol) =>
          ['no-request', 'multiple-requests', 'unexpected-compression'].map(
            (name) => `${protocol} Unexpected Requests/**/${name}`,
          ),
        ),
      ],
    },
  },
  {
    why: 'a message that is compressed though no header says how is its caller’s fault: INVALID_ARGUMENT here, and never INTERNAL',
    says: new RegExp(
      `${DETAILS.source}|code: 3 \\(invalid_argument\\).* does not match expected code 13 \\(internal\\)`,
    ),
    cases: {
      grpc: ['gRPC Unexpected Requests/**/unexpected-compressed-message'],
      http: ['Connect', 'gRPC', 'gRPC-Web'].map(
        (protocol) => `${protocol} Unexpected Requests/**/unexpected-compressed-message`,
      ),
    },
  },
  {
    why: 'the same, where the deadline is told by this program before the judge’s own client tells it',
    says: DETAILS,
    sometimes: true,
    cases: { grpc: ['Timeouts/**'], http: ['Timeouts/**'] },
  },
];

const namesOf = (pattern: string): RegExp => new RegExp(`^${pattern.replaceAll('**', '.*')}$`);

/** Why a case may fail; undefined where it may not, or not with what the judge said of it. */
export const reasonOf = (port: 'grpc' | 'http', name: string, said: readonly string[]): string | undefined =>
  KNOWN_FAILURES.find(
    ({ says, cases }) =>
      cases[port].some((pattern) => namesOf(pattern).test(name)) && said.every((line) => says.test(line)),
  )?.why;
