import type { DescMessage, Message, MessageShape } from '@bufbuild/protobuf';

/** `updateMask` -> `update_mask`, the name that a field has in the contract. */
type ProtoName<S extends string, Before extends string = ''> = S extends `${infer First}${infer Rest}`
  ? ProtoName<Rest, First extends Lowercase<First> ? `${Before}${First}` : `${Before}_${Lowercase<First>}`>
  : Before;

type Choice = { readonly case: string; readonly value?: unknown };
type Keys<M> = Exclude<keyof M, keyof Message> & string;
type Choices<M> = { [K in Keys<M>]: Extract<M[K], Choice> }[Keys<M>];

/** Values of a message's fields by their names in the contract, those of a oneof like all others. */
export type FieldsOf<M> = {
  [K in Keys<M> as Extract<M[K], Choice> extends never ? ProtoName<K> : never]-?: NonNullable<M[K]>;
} & { [C in Choices<M> as ProtoName<C['case']>]-?: NonNullable<C['value']> };

/** Names of a message's fields in the contract. */
export type FieldName<D extends DescMessage> = keyof FieldsOf<MessageShape<D>> & string;

/** Messages of protobuf itself, whose fields no RPC names. */
type WellKnown = { readonly $typeName: `google.protobuf.${string}` };

type ElementOf<V> = V extends readonly (infer E)[] ? E : V;

/** Levels of messages in messages that a path goes down. */
type Levels = 4;

type Paths<M, Before extends string, Depth extends readonly unknown[]> = Depth['length'] extends Levels
  ? never
  : {
      [F in keyof FieldsOf<M> & string]:
        | readonly [`${Before}${F}`, FieldsOf<M>[F]]
        | (ElementOf<FieldsOf<M>[F]> extends infer E extends Message
            ? E extends WellKnown
              ? never
              : Paths<E, `${Before}${F}.`, [...Depth, F]>
            : never);
    }[keyof FieldsOf<M> & string];

/** Paths of a message's fields, and of those of the messages in it (`rule.id`), each with the type of its values. */
export type PathOf<D extends DescMessage> = Paths<MessageShape<D>, '', []>;
