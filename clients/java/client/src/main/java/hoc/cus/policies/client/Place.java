package hoc.cus.policies.client;

import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Message;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.function.Function;

/**
 * How far a stream has come: its last token, and the rows that were handed out since. These are told by what is in them, so that
 * one that was changed meanwhile comes once more, and one that was added or removed disturbs nothing.
 */
final class Place<Q extends Message, T extends Message> {
  private static final String TOKEN = "resume_token";
  /** How many rows without a token after them are remembered; a stream that brings more does not go on. */
  private static final int MOST_KEPT = 2_000;

  private final Function<Q, Iterator<T>> call;
  private Q request;
  /** In the order of the stream. */
  private List<T> kept = new ArrayList<>();
  /** Those of them that have not come again since the cut. */
  private List<T> again = List.of();

  private boolean goesOn;

  Place(Function<Q, Iterator<T>> call, Q request) {
    this.call = call;
    this.request = request;
    goesOn = token(request) != null;
  }

  private static FieldDescriptor token(Message message) {
    return message.getDescriptorForType().findFieldByName(TOKEN);
  }

  /** Whether its stream has tokens that lead here. */
  boolean goesOn() {
    return goesOn;
  }

  Iterator<T> open() {
    again = new ArrayList<>(kept);
    return call.apply(request);
  }

  /** Remembers a row, and tells whether it is handed out for the first time. */
  boolean isNew(T row) {
    if (!goesOn) return true;
    FieldDescriptor token = token(row);
    boolean hasToken = token != null && row.hasField(token);
    int at = again.isEmpty() ? -1 : again.indexOf(hasToken ? row.toBuilder().clearField(token).build() : row);
    if (at >= 0) again = again.subList(at + 1, again.size());
    if (hasToken) {
      request = Pages.with(request, TOKEN, row.getField(token));
      kept = new ArrayList<>(again);
    } else if (at < 0 && kept.size() == MOST_KEPT) {
      goesOn = false;
      kept = again = List.of();
    } else if (at < 0) {
      kept.add(kept.size() - again.size(), row);
    }
    return at < 0;
  }
}
