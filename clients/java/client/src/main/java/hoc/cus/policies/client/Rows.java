package hoc.cus.policies.client;

import com.google.protobuf.Message;
import io.grpc.Context;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Spliterator;
import java.util.Spliterators;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Function;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * The rows of a stream, to be read once; closing cancels what has not come yet. Outside transactions they go on by themselves
 * where their stream is cut, unless the client is built otherwise. No row is handed out twice but one that others have changed
 * meanwhile.
 *
 * <pre>{@code try (var rows = Rows.of(client.policyEngine()::streamViolations, request)) { for (var row : rows) … }}</pre>
 */
public final class Rows<T extends Message> implements Iterable<T>, Iterator<T>, AutoCloseable {
  /** Where the call that opens a stream says whether that goes on. */
  static final Context.Key<AtomicBoolean> GOES_ON = Context.key("goes on");

  private final AtomicBoolean goesOn = new AtomicBoolean();
  private final Context.CancellableContext context = Context.current().withValue(GOES_ON, goesOn).withCancellation();
  private final Place<?, T> place;
  private Iterator<T> rows;
  private T next;
  private int failures;

  private <Q extends Message> Rows(Function<Q, Iterator<T>> call, Q request) {
    place = new Place<>(call, request);
    open();
  }

  /** Calls the streaming method of a stub. */
  public static <Q extends Message, T extends Message> Rows<T> of(Function<Q, Iterator<T>> call, Q request) {
    return new Rows<>(call, request);
  }

  private void open() {
    Context before = context.attach();
    try {
      rows = place.open();
    } finally {
      context.detach(before);
    }
  }

  @Override
  public boolean hasNext() {
    while (next == null) {
      try {
        if (!rows.hasNext()) return false;
        T row = rows.next();
        if (!goesOn.get() || place.isNew(row)) next = row;
      } catch (StatusRuntimeException error) {
        goOnAfter(told(error));
      }
    }
    failures = 0;
    return true;
  }

  private void goOnAfter(PolicyException error) {
    boolean promising = goesOn.get() && place.goesOn() && error instanceof PolicyException.Unavailable;
    if (!promising
        || ++failures >= Bound.ATTEMPTS
        || !Retry.pause(error.retryAfter().orElse(Duration.ZERO), failures, context.getDeadline())) {
      close();
      throw error;
    }
    open();
  }

  private static PolicyException told(StatusRuntimeException error) {
    return Bound.LATE.equals(error.getStatus().getDescription())
        ? PolicyException.of(PolicyException.Facts.plain(Status.Code.DEADLINE_EXCEEDED, Bound.LATE, error))
        : PolicyException.of(error);
  }

  @Override
  public T next() {
    if (!hasNext()) throw new NoSuchElementException();
    T row = next;
    next = null;
    return row;
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
