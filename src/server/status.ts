import { create, type DescMessage, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { anyPack, durationFromMs } from '@bufbuild/protobuf/wkt';
import type { Detail, RpcError } from '../contract/errors.ts';
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  RetryInfoSchema,
} from '../gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../gen/google/rpc/status_pb.ts';

/** Domain of every reason. */
const ERROR_DOMAIN = 'policies.hoc';

/** The text as every encoding carries it: half of a surrogate pair, which a caller's own key may hold, has none. */
export const wellFormed = (text: string): string => text.toWellFormed();

const detail = <D extends DescMessage>(desc: D, value: MessageInitShape<D>): Detail<D> => ({ desc, value });

/** The details of an error: its own, or ErrorInfo always and the others where they say something. */
export const errorDetails = (error: RpcError): readonly Detail[] => {
  if (error.details) return error.details;
  const details: Detail[] = [
    detail(ErrorInfoSchema, { reason: error.reason, domain: ERROR_DOMAIN, metadata: { ...error.metadata } }),
  ];
  if (error.retryAfterMs !== undefined) {
    details.push(detail(RetryInfoSchema, { retryDelay: durationFromMs(error.retryAfterMs) }));
  }
  if (error.fields.length > 0) {
    details.push(
      detail(BadRequestSchema, {
        fieldViolations: error.fields.map(({ field, description }) => ({
          field: wellFormed(field),
          description: wellFormed(description),
        })),
      }),
    );
  }
  if (error.preconditions.length > 0) {
    details.push(detail(PreconditionFailureSchema, { violations: [...error.preconditions] }));
  }
  return details;
};

/** The `google.rpc.Status` that gRPC carries in the `grpc-status-details-bin` trailer. */
export const statusBytes = (error: RpcError): Uint8Array =>
  toBinary(
    StatusSchema,
    create(StatusSchema, {
      code: error.code,
      message: wellFormed(error.message),
      details: errorDetails(error).map(({ desc, value }) => anyPack(desc, create(desc, value))),
    }),
  );
