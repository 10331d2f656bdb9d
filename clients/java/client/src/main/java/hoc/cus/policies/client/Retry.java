package hoc.cus.policies.client;

import io.grpc.Context;
import io.grpc.Deadline;
import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;

/** Trying again, with waits. */
final class Retry {
  /** Where an error names no delay. */
  private static final long FIRST_MS = 50;

  private static final long LONGEST_MS = 5_000;

  private Retry() {}

  interface Work<R, E extends Exception> {
    R run() throws E;
  }

  /** Tries it again while that is promising, and there are attempts and time for it; a null deadline never comes. */
  static <R, E extends Exception> R retry(
      int attempts, Deadline deadline, Predicate<PolicyException> promising, Work<R, E> work) throws E {
    for (int attempt = 1; ; attempt++) {
      try {
        return work.run();
      } catch (PolicyException error) {
        if (attempt >= attempts || !promising.test(error) || !pause(error.retryAfter().orElse(Duration.ZERO), attempt, deadline)) {
          throw error;
        }
      }
    }
  }

  /** Waits what is asked for, more each time, never the same for two callers; false where there is no time for that. */
  static boolean pause(Duration after, int attempt, Deadline deadline) {
    long asked = after.toMillis();
    long grown = Math.min(Math.max(asked, FIRST_MS) << Math.min(attempt - 1, 10), LONGEST_MS);
    long wait = (long) (Math.max(asked, grown) * (1 + ThreadLocalRandom.current().nextDouble()));
    if (deadline != null && deadline.timeRemaining(TimeUnit.MILLISECONDS) <= wait || Context.current().isCancelled()) {
      return false;
    }
    try {
      Thread.sleep(wait);
      return true;
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  /** The sooner of two; null is never. */
  static Deadline sooner(Deadline one, Deadline other) {
    return one == null ? other : other == null ? one : one.minimum(other);
  }
}
