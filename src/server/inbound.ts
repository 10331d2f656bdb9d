import type { ResponseSize } from '../contract/response-size.ts';
import type { CallNotes } from '../database/notes.ts';
import type { Signal } from '../database/signal.ts';
import type { Bound } from '../database/tenants.ts';
import type { Access } from './access.ts';
import type { ClientCertificate } from './certificate.ts';
import type { Endpoint } from './endpoint.ts';
import type { Headers, ReadHeaders, TraceHeaders } from './headers.ts';

/** A call that has arrived: nothing of its body has been looked at. */
export interface Arrival extends ReadHeaders {
  readonly endpoint: Endpoint;
  /** Who is at the other end, for the log. */
  readonly peer: string;
  /** How it was called, in the words of OpenTelemetry. */
  readonly system: 'grpc' | 'connectrpc';
  /** By which the connection was let in; undefined where none is asked for. */
  readonly certificate: ClientCertificate | undefined;
}

/** A call whose caller is known and whose headers can be read. */
export interface Admitted extends Headers {
  readonly endpoint: Endpoint;
  readonly peer: string;
  readonly system: Arrival['system'];
  readonly trace: TraceHeaders | undefined;
  readonly caller: string;
  /** What the caller may do. */
  readonly access: Access;
  /** Whose rows alone its statements see; undefined: they see all. */
  readonly bound: Bound | undefined;
}

/** A call as a listener hands it over. */
export interface Inbound extends Admitted {
  /** Whether the listener notices within a minute that the caller's machine has vanished. */
  readonly watched: boolean;
  /** Fires with an RpcError when the call's deadline passes or the caller goes away. */
  readonly signal: Signal;
  /** What the answer says beside itself; the listener sends it as `trailersOf` has it. */
  readonly notes: CallNotes;
  /** How large its one response may be, as `Pipeline.sizeOf` has it. */
  readonly size: ResponseSize;
  /** Whether the listener takes responses as bytes where rows can be made into them directly. */
  readonly encoded: boolean;
}
