import type { DescField, DescMessage, Message } from '@bufbuild/protobuf';

/**
 * A copy of a message in which something else stands for the messages in its fields: nobody else who has the message notices.
 *
 * @param within what stands for a message; its path is that of the field, `a.b[1].c`.
 */
export const rewritten = (
  desc: DescMessage,
  message: Message,
  within: (desc: DescMessage, value: Message, path: string) => Message,
  path = '',
): Message => {
  const copy = Object.create(Object.getPrototypeOf(message) as object, Object.getOwnPropertyDescriptors(message));
  const put = (field: DescField, owner: object | undefined, value: unknown): void => {
    if (owner) copy[field.oneof!.localName] = { case: field.localName, value };
    else copy[field.localName] = value;
  };
  for (const field of desc.fields) {
    const owner = field.oneof ? (copy[field.oneof.localName] as { case?: string; value?: unknown }) : undefined;
    const value = owner ? (owner.case === field.localName ? owner.value : undefined) : copy[field.localName];
    const type = field.message;
    if (value === undefined || type === undefined) continue;
    const at = path === '' ? field.name : `${path}.${field.name}`;
    switch (field.fieldKind) {
      case 'list':
        put(
          field,
          owner,
          (value as Message[]).map((each, index) => within(type, each, `${at}[${index}]`)),
        );
        break;
      case 'map':
        // `fromEntries` defines properties, so a key may be `__proto__`.
        put(
          field,
          owner,
          Object.fromEntries(
            Object.entries(value as Record<string, Message>).map(([key, each]) => [
              key,
              within(type, each, `${at}.${key}`),
            ]),
          ),
        );
        break;
      default:
        put(field, owner, within(type, value as Message, at));
    }
  }
  return copy as Message;
};
