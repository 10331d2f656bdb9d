package hoc.cus.policies.client;

import io.grpc.Context;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.Iterator;
import java.util.Spliterator;
import java.util.Spliterators;
import java.util.function.Function;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * The rows of a stream, to be read once; closing cancels what has not come yet.
 *
 * <pre>{@code try (var rows = Rows.of(client.policyEngine()::streamViolations, request)) { for (var row : rows) … }}</pre>
 */
public final class Rows<T> implements Iterable<T>, Iterator<T>, AutoCloseable {
  private final Context.CancellableContext context = Context.current().withCancellation();
  private final Iterator<T> rows;

  private <Q> Rows(Function<Q, Iterator<T>> call, Q request) {
    Context before = context.attach();
    try {
      rows = call.apply(request);
    } finally {
      context.detach(before);
    }
  }

  /** Calls the streaming method of a stub. It is not tried again. */
  public static <Q, T> Rows<T> of(Function<Q, Iterator<T>> call, Q request) {
    return new Rows<>(call, request);
  }

  @Override
  public boolean hasNext() {
    try {
      return rows.hasNext();
    } catch (StatusRuntimeException error) {
      close();
      Status status = error.getStatus();
      if (Bound.NO_CONNECTION.equals(status.getDescription())) {
        throw PolicyException.of(
            PolicyException.Facts.plain(Status.Code.DEADLINE_EXCEEDED, Bound.NO_CONNECTION, error));
      }
      throw PolicyException.of(error);
    }
  }

  @Override
  public T next() {
    hasNext();
    return rows.next();
  }

  @Override
  public Iterator<T> iterator() {
    return this;
  }

  /** The rows as a stream; closing that closes these. */
  public Stream<T> stream() {
    var ordered = Spliterators.spliteratorUnknownSize(this, Spliterator.ORDERED | Spliterator.NONNULL);
    return StreamSupport.stream(ordered, false).onClose(this::close);
  }

  @Override
  public void close() {
    context.cancel(null);
  }
}
