package hoc.cus.policies.client;

import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Message;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.function.Function;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * The answers of a list one after the other, each where the last one ended; the limit of the request is the size of a page.
 * Every iteration begins with the request.
 *
 * <pre>{@code for (var page : Pages.of(client.policyEngine()::fetchViolations, request)) …}</pre>
 */
public final class Pages<Q extends Message, A extends Message> implements Iterable<A> {
  private final Function<Q, A> call;
  private final Q request;

  private Pages(Function<Q, A> call, Q request) {
    this.call = call;
    this.request = request;
  }

  /**
   * Calls a listing method of a stub for each page, when it is asked for.
   *
   * @throws IllegalArgumentException where the list has no pages
   */
  public static <Q extends Message, A extends Message> Pages<Q, A> of(Function<Q, A> call, Q request) {
    if (request.getDescriptorForType().findFieldByName("page_token") == null) {
      throw new IllegalArgumentException(request.getDescriptorForType().getFullName() + " has no page_token");
    }
    return new Pages<>(call, request);
  }

  @Override
  public Iterator<A> iterator() {
    return new Iterator<>() {
      private Q next = request;

      @Override
      public boolean hasNext() {
        return next != null;
      }

      @Override
      public A next() {
        if (next == null) throw new NoSuchElementException();
        A answer = call.apply(next);
        FieldDescriptor token = answer.getDescriptorForType().findFieldByName("next_page_token");
        next = answer.hasField(token) ? with(request, "page_token", answer.getField(token)) : null;
        return answer;
      }
    };
  }

  /** The answers as a stream. */
  public Stream<A> stream() {
    return StreamSupport.stream(spliterator(), false);
  }

  /** The message with another value of a field. */
  @SuppressWarnings("unchecked")
  static <M extends Message> M with(M message, String field, Object value) {
    return (M) message.toBuilder().setField(message.getDescriptorForType().findFieldByName(field), value).build();
  }
}
