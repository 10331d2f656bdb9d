import { execFileSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type DescService, fromBinary } from '@bufbuild/protobuf';
import { type FileDescriptorProto, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { describe, expect, test } from 'vitest';
import { drivers as driversFor } from '../../src/drivers/drivers.ts';
import { OperationResultSchema, OperationSchema } from '../../src/gen/hoc/cus/policies/v1/operation_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { inventory } from '../golden/format.ts';
import { noServices } from '../support/services.ts';

const PACKAGE = 'hoc.cus.policies.v1';
const root = fileURLToPath(new URL('../..', import.meta.url));

/** What buf compiles of the contract, with the comments that generated code leaves out. */
const compiled: readonly FileDescriptorProto[] = fromBinary(
  FileDescriptorSetSchema,
  execFileSync(`${root}/node_modules/.bin/buf`, ['build', '--as-file-descriptor-set', '-o', '-'], {
    cwd: root,
    maxBuffer: 1 << 28,
  }),
).file.filter((file) => file.package === PACKAGE);

const drivers = driversFor(noServices);
const services: readonly DescService[] = [...drivers.map(({ service }) => service), TransactionService];
const named = (service: DescService): string[] => service.methods.map(({ name }) => `${service.name}/${name}`);

describe('inventory', () => {
  const rows = inventory().filter(({ rpc }) => rpc !== null && !rpc.endsWith('/*'));

  test('names 159 methods and 110 RPCs', () => {
    expect(inventory()).toHaveLength(159);
    expect(new Set(rows.map(({ rpc }) => rpc)).size).toBe(110);
  });

  test('every method has its RPC', () => {
    const existing = new Set<string>(services.flatMap(named));
    expect(rows.map(({ rpc }) => rpc).filter((rpc) => !existing.has(rpc!))).toEqual([]);
  });

  test('every RPC treats transactions as the method does', () => {
    const kinds = new Map<string, string | undefined>(
      drivers.flatMap(({ service, rpcs }) =>
        service.methods.map((method) => [`${service.name}/${method.name}`, rpcs[method.localName]?.kind] as const),
      ),
    );
    // The snapshot of a scope resolution is a field of its response, which reads.
    const own = rows.filter(({ via }) => !via?.startsWith('field '));
    expect(own.filter(({ rpc, kind }) => kinds.get(rpc!) !== kind).map(({ rpc }) => rpc)).toEqual([]);
  });
});

describe('drivers', () => {
  test('every service of the contract is served', () => {
    const declared = compiled.flatMap(({ service }) => service.map(({ name }) => name));
    expect(declared.sort()).toEqual(services.map(({ name }) => name).sort());
  });

  test.each(drivers.map((driver) => [driver.service.name, driver] as const))('%s serves every RPC', (_name, driver) => {
    expect(driver.service.methods.filter(({ localName }) => !driver.rpcs[localName]).map(({ name }) => name)).toEqual(
      [],
    );
  });

  test('Execute knows every RPC on the database', () => {
    const known = new Set(
      [OperationSchema, OperationResultSchema].flatMap(({ oneofs }) =>
        oneofs.flatMap(({ fields }) => fields.map(({ message }) => message?.typeName)),
      ),
    );
    const missing = drivers.flatMap(({ service, rpcs }) =>
      service.methods
        .filter((method) => method.methodKind === 'unary' && rpcs[method.localName]?.kind !== 'compute')
        .filter(({ input, output }) => !known.has(input.typeName) || !known.has(output.typeName))
        .map(({ name }) => `${service.name}/${name}`),
    );
    expect(missing).toEqual([]);
  });
});

/**
 * RPCs that tests name as `Service.method.rpc`, or through a constant made of `Service.method`: what a test calls it
 * must name, and a table of all RPCs names none.
 */
const tested = (): Set<string> => {
  const names = new Set<string>();
  const files = globSync(['test/contract/**/*.ts', 'test/server/**/*.ts', 'test/faults/**/*.ts'], {
    cwd: root,
    // It names nearly every read and looks at plans only.
    exclude: ['**/indexes.test.ts'],
  });
  for (const file of files) {
    const text = readFileSync(`${root}/${file}`, 'utf8');
    const holders = new Map(services.map((service) => [`${service.name}.method`, [service.name]]));
    for (const [, holder, made] of text.matchAll(/const (\w+) = ([^;]*\b\w+Service\.method\b[^;]*);/g)) {
      holders.set(
        holder!,
        [...made!.matchAll(/\b(\w+Service)\.method\b(?!\.)/g)].map((each) => each[1]!),
      );
    }
    for (const [holder, owners] of holders) {
      for (const [, rpc] of text.matchAll(new RegExp(`\\b${holder.replace('.', '\\.')}\\.(\\w+)`, 'g'))) {
        for (const owner of owners) names.add(`${owner}.${rpc}`);
      }
    }
  }
  return names;
};

describe('contract tests', () => {
  const found = tested();
  test.each(services.map((service) => [service.name, service] as const))('%s: every RPC has one', (name, service) => {
    const methods = service.methods.filter(({ localName }) => !found.has(`${name}.${localName}`));
    expect(methods.map((method) => method.name)).toEqual([]);
  });
});

/** Field numbers of the descriptors that a source location's path is made of. */
const PATH = { message: 4, enum: 5, service: 6, field: 2, nested: 3, nestedEnum: 4, oneof: 8, value: 2, method: 2 };

/** Elements of a file that have no comment. */
const uncommented = (file: FileDescriptorProto): string[] => {
  const commented = new Set(
    (file.sourceCodeInfo?.location ?? [])
      .filter(({ leadingComments }) => leadingComments?.trim())
      .map(({ path }) => path.join()),
  );
  const bare: string[] = [];
  const see = (name: string, ...path: number[]): void => {
    if (!commented.has(path.join())) bare.push(name);
  };
  const seeEnum = ({ name, value }: FileDescriptorProto['enumType'][number], ...path: number[]): void => {
    see(name, ...path);
    value.forEach((each, index) => {
      see(each.name, ...path, PATH.value, index);
    });
  };
  const seeMessage = (message: FileDescriptorProto['messageType'][number], ...path: number[]): void => {
    if (message.options?.mapEntry) return;
    see(message.name, ...path);
    message.field.forEach((field, index) => {
      see(`${message.name}.${field.name}`, ...path, PATH.field, index);
    });
    message.oneofDecl.forEach((oneof, index) => {
      const synthetic = message.field.some((field) => field.proto3Optional && field.oneofIndex === index);
      if (!synthetic) see(`${message.name}.${oneof.name}`, ...path, PATH.oneof, index);
    });
    message.nestedType.forEach((each, index) => {
      seeMessage(each, ...path, PATH.nested, index);
    });
    message.enumType.forEach((each, index) => {
      seeEnum(each, ...path, PATH.nestedEnum, index);
    });
  };
  file.messageType.forEach((message, index) => {
    seeMessage(message, PATH.message, index);
  });
  file.enumType.forEach((each, index) => {
    seeEnum(each, PATH.enum, index);
  });
  file.service.forEach((service, index) => {
    see(service.name, PATH.service, index);
    service.method.forEach((method, number) => {
      see(`${service.name}.${method.name}`, PATH.service, index, PATH.method, number);
    });
  });
  return bare;
};

describe('comments', () => {
  test.each(compiled.map((file) => [file.name, file] as const))('%s: everything has one', (_name, file) => {
    expect(uncommented(file)).toEqual([]);
  });
});
