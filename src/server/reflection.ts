import { type DescFile, type DescService, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { Code } from '../contract/errors.ts';
import { file_google_rpc_error_details } from '../gen/google/rpc/error_details_pb.ts';
import { ServerReflection, type ServerReflectionRequest } from '../gen/grpc/reflection/v1/reflection_pb.ts';
import {
  type ServerReflectionRequest as AlphaRequest,
  ServerReflection as ServerReflectionAlpha,
} from '../gen/grpc/reflection/v1alpha/reflection_pb.ts';
import { file_hoc_cus_policies_v1_error_reason } from '../gen/hoc/cus/policies/v1/error_reason_pb.ts';
import { controlEndpoints, type Endpoint } from './endpoint.ts';

/** In either version. */
type Question = ServerReflectionRequest | AlphaRequest;

/** The files that declare services, and what they import. */
const filesOf = (services: readonly DescService[]): Map<string, DescFile> => {
  const files = new Map<string, DescFile>();
  const add = (file: DescFile): void => {
    if (files.has(file.proto.name)) return;
    files.set(file.proto.name, file);
    file.dependencies.forEach(add);
  };
  for (const { file } of services) add(file);
  // No RPC mentions reasons and details of errors, and every caller meets them.
  add(file_hoc_cus_policies_v1_error_reason);
  add(file_google_rpc_error_details);
  return files;
};

/** Every declared name -> its file. */
const symbolsOf = (files: Iterable<DescFile>): Map<string, DescFile> => {
  const symbols = new Map<string, DescFile>();
  const addMessages = (messages: DescFile['messages'], file: DescFile): void => {
    for (const message of messages) {
      symbols.set(message.typeName, file);
      for (const field of message.fields) symbols.set(`${message.typeName}.${field.name}`, file);
      for (const nested of message.nestedEnums) symbols.set(nested.typeName, file);
      addMessages(message.nestedMessages, file);
    }
  };
  for (const file of files) {
    addMessages(file.messages, file);
    for (const { typeName } of [...file.enums, ...file.extensions]) symbols.set(typeName, file);
    for (const service of file.services) {
      symbols.set(service.typeName, file);
      for (const method of service.methods) symbols.set(`${service.typeName}.${method.name}`, file);
    }
  }
  return symbols;
};

/** Server reflection, v1 and v1alpha, of the given services and itself. */
export const reflectionEndpoints = (described: readonly DescService[]): Endpoint[] => {
  const services = [...described, ServerReflection, ServerReflectionAlpha];
  const files = filesOf(services);
  const symbols = symbolsOf(files.values());

  const extensions = [...files.values()].flatMap(({ extensions }) => extensions);

  const withImports = (file: DescFile): Uint8Array[] => {
    const closure = new Set<DescFile>();
    const add = (each: DescFile): void => {
      if (closure.has(each)) return;
      closure.add(each);
      each.dependencies.forEach(add);
    };
    add(file);
    return [...closure].map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
  };

  const failure = (errorMessage: string) => ({
    case: 'errorResponse' as const,
    value: { errorCode: Code.NOT_FOUND, errorMessage },
  });

  const fileAnswer = (file: DescFile | undefined, name: string) =>
    file
      ? { case: 'fileDescriptorResponse' as const, value: { fileDescriptorProto: withImports(file) } }
      : failure(`not found: ${name}`);

  const answer = ({ messageRequest: question }: Question) => {
    switch (question.case) {
      case 'listServices':
        return {
          case: 'listServicesResponse' as const,
          value: { service: services.map(({ typeName }) => ({ name: typeName })) },
        };
      case 'fileByFilename':
        return fileAnswer(files.get(question.value), question.value);
      case 'fileContainingSymbol':
        return fileAnswer(symbols.get(question.value.replace(/^\./, '')), question.value);
      case 'fileContainingExtension': {
        const { containingType, extensionNumber } = question.value;
        const found = extensions.find(
          ({ extendee, number }) => extendee.typeName === containingType && number === extensionNumber,
        );
        return fileAnswer(found?.file, `${containingType} ${extensionNumber}`);
      }
      case 'allExtensionNumbersOfType':
        return symbols.has(question.value)
          ? {
              case: 'allExtensionNumbersResponse' as const,
              value: {
                baseTypeName: question.value,
                extensionNumber: extensions
                  .filter(({ extendee }) => extendee.typeName === question.value)
                  .map(({ number }) => number),
              },
            }
          : failure(`not found: ${question.value}`);
      default:
        return failure('not found');
    }
  };

  const rpcs = <Q extends Question>() => ({
    serverReflectionInfo: {
      async *handle(requests: AsyncIterable<Q>) {
        for await (const request of requests) {
          yield { validHost: request.host, originalRequest: request, messageResponse: answer(request) };
        }
      },
    },
  });
  return [
    ...controlEndpoints(ServerReflection, rpcs<ServerReflectionRequest>(), { quiet: true }),
    ...controlEndpoints(ServerReflectionAlpha, rpcs<AlphaRequest>(), { quiet: true }),
  ];
};
