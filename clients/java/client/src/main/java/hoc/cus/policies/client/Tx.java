package hoc.cus.policies.client;

import hoc.cus.policies.v1.CommitRequest;
import hoc.cus.policies.v1.ErrorReason;
import hoc.cus.policies.v1.ExecuteRequest;
import hoc.cus.policies.v1.ExecuteResponse;
import hoc.cus.policies.v1.GetOutcomeRequest;
import hoc.cus.policies.v1.HoldRequest;
import hoc.cus.policies.v1.HoldResponse;
import hoc.cus.policies.v1.Outcome;
import hoc.cus.policies.v1.PrepareRequest;
import hoc.cus.policies.v1.ReleaseSavepointRequest;
import hoc.cus.policies.v1.RollbackPreparedRequest;
import hoc.cus.policies.v1.RollbackRequest;
import hoc.cus.policies.v1.RollbackToSavepointRequest;
import hoc.cus.policies.v1.SavepointRequest;
import hoc.cus.policies.v1.TransactionServiceGrpc;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.Status;
import java.time.Duration;
import java.util.NoSuchElementException;
import java.util.concurrent.TimeUnit;

/**
 * An open transaction; what its services do is inside it, one call at a time. Closing it without {@link #commit} or {@link
 * #prepare} rolls back, and so does, at once, the end of its process.
 */
public final class Tx extends Services implements AutoCloseable {
  private final PolicySidecar sidecar;
  private final Rows<HoldResponse> held;
  private final String id;
  private boolean ended;
  private boolean prepared;
  /** Nobody knows whether it is prepared. */
  private boolean mayBePrepared;
  /** Why it is rolled back whatever is asked for; null: it is not. */
  private PolicyException doomed;
  /** How many savepoints have been set. */
  private int savepoints;
  /** How many of them have not ended. */
  private int open;

  private Tx(PolicySidecar sidecar, Rows<HoldResponse> held, String id) {
    super(sidecar.bound(id));
    this.sidecar = sidecar;
    this.held = held;
    this.id = id;
  }

  static Tx begin(PolicySidecar sidecar, TxOptions options) {
    Rows<HoldResponse> held =
        Rows.of(sidecar.transactions()::hold, HoldRequest.newBuilder().setBegin(options.request()).build());
    try {
      return new Tx(sidecar, held, held.next().getTransaction().getId());
    } catch (NoSuchElementException ended) {
      held.close();
      throw PolicyException.of(
          PolicyException.Facts.plain(Status.Code.UNAVAILABLE, "the transaction ended before it began", ended));
    } catch (RuntimeException failed) {
      held.close();
      throw failed;
    }
  }

  /** Its id at the sidecar. */
  public String id() {
    return id;
  }

  /** Runs a list of operations inside the transaction in one round trip: all take effect, or none. */
  public ExecuteResponse execute(ExecuteRequest request) {
    return TransactionServiceGrpc.newBlockingStub(channel).execute(request);
  }

  /**
   * Commits. Where the answer is lost, the sidecar is asked what became of it, for as long as the client's timeout.
   *
   * @return what {@link PolicySidecar#withConsistency} needs to see what was committed; empty where the sidecar has no replicas
   * @throws PolicyException.OutcomeUnknown where nobody could tell
   * @throws PolicyException why it is rolled back instead, where a savepoint could not be undone
   */
  public String commit() {
    if (doomed != null) {
      close();
      throw doomed;
    }
    ended = true;
    Trailers trailers = new Trailers();
    try {
      sidecar.transactions().withInterceptors(trailers).commit(CommitRequest.newBuilder().setTransactionId(id).build());
    } catch (PolicyException error) {
      boolean unknown = error.isUnanswered() || error.reason().equals(ErrorReason.TRANSACTION_OUTCOME_UNKNOWN.name());
      if (!unknown) throw error;
      apart(() -> outcome(error));
    } finally {
      held.close();
    }
    return trailers.consistencyToken();
  }

  private void outcome(PolicyException cause) {
    Deadline deadline = Deadline.after(sidecar.timeout.toMillis(), TimeUnit.MILLISECONDS);
    GetOutcomeRequest request = GetOutcomeRequest.newBuilder().setTransactionId(id).build();
    for (int attempt = 1; ; attempt++) {
      Duration wait = Duration.ZERO;
      try {
        Outcome outcome = sidecar.transactions().withDeadline(deadline).getOutcome(request).getOutcome();
        if (outcome == Outcome.OUTCOME_COMMITTED) return;
        if (outcome == Outcome.OUTCOME_ABORTED) {
          throw new PolicyException.Conflict(
              PolicyException.Facts.plain(
                  Status.Code.ABORTED, "the commit was lost on its way, and the transaction rolled back", cause));
        }
        if (outcome != Outcome.OUTCOME_IN_PROGRESS) throw new PolicyException.OutcomeUnknown(id, cause);
      } catch (PolicyException.Conflict | PolicyException.OutcomeUnknown told) {
        throw told;
      } catch (PolicyException error) {
        if (!error.retriable()) throw new PolicyException.OutcomeUnknown(id, cause);
        wait = error.retryAfter().orElse(wait);
      }
      if (!Retry.pause(wait, attempt, deadline)) throw new PolicyException.OutcomeUnknown(id, cause);
    }
  }

  /** What must be done even though the caller's context has ended or its thread is interrupted. */
  private static void apart(Runnable work) {
    boolean interrupted = Thread.interrupted();
    try {
      Context.current().fork().run(work);
    } finally {
      if (interrupted) Thread.currentThread().interrupt();
    }
  }

  /** Its own service, for what must not take long. */
  private TransactionServiceGrpc.TransactionServiceBlockingStub briefly() {
    return sidecar.transactions().withDeadlineAfter(Math.min(sidecar.timeout.toMillis(), 5_000), TimeUnit.MILLISECONDS);
  }

  /** Makes sure that it is never committed, whatever its caller makes of the exception. */
  private void doom(String why, PolicyException cause) {
    doomed = PolicyException.of(why, cause);
    held.close();
  }

  /** Rolls back unless it was committed or prepared; never throws. */
  @Override
  public void close() {
    if (ended) return;
    ended = true;
    apart(
        () -> {
          try {
            briefly().rollback(RollbackRequest.newBuilder().setTransactionId(id).build());
          } catch (PolicyException gone) {
            // The end of the stream rolls it back.
          } finally {
            held.close();
          }
          try {
            if (mayBePrepared) briefly().rollbackPrepared(RollbackPreparedRequest.newBuilder().setTransactionId(id).build());
          } catch (PolicyException gone) {
            // The end of its lease rolls it back.
          }
        });
  }

  /**
   * Makes sure that it can be committed, and leaves that to {@code commitPrepared} or {@code rollbackPrepared} of {@link
   * PolicySidecar#transactions}, which take its id: so it ends together with a transaction of the caller's own database, which is
   * committed in between. Nothing else can be done in it, and neither closing it nor {@code run}, however its work ends, commits
   * it, rolls it back or begins anew.
   *
   * <p>After an exception that leaves open whether it is prepared it is rolled back; after another it is as it was, unless that
   * says that it has ended.
   *
   * @param lease how long it may stay prepared before it is rolled back; null: what the sidecar is configured for
   * @return the lease granted
   * @throws PolicyException.Precondition inside a savepoint, too
   */
  public Duration prepare(Duration lease) {
    if (open > 0) {
      throw PolicyException.of(
          PolicyException.Facts.plain(
              Status.Code.FAILED_PRECONDITION, "a transaction cannot be prepared inside a savepoint", null));
    }
    PrepareRequest.Builder request = PrepareRequest.newBuilder().setTransactionId(id);
    if (lease != null) request.getLeaseBuilder().setSeconds(lease.getSeconds()).setNanos(lease.getNano());
    try {
      var granted = sidecar.transactions().prepare(request.build()).getLease();
      ended = prepared = true;
      held.close();
      return Duration.ofSeconds(granted.getSeconds(), granted.getNanos());
    } catch (PolicyException error) {
      if (!error.isUnanswered()) throw error;
      mayBePrepared = true;
      doom("rolled back, for nobody knows whether it was prepared", error);
      throw doomed;
    }
  }

  boolean isPrepared() {
    return prepared;
  }

  /** A part that may fail alone. */
  @FunctionalInterface
  public interface Part<E extends Exception> {
    void run() throws E;
  }

  /**
   * Runs a part, and undoes what it did when it throws, which is passed on; the transaction goes on. May be nested.
   *
   * <p>How it ends does not depend on what has become of the thread and its {@link Context}. Where it cannot be undone, what it
   * threw has the reason suppressed, the whole transaction is rolled back, and {@link #commit} throws why.
   */
  public <E extends Exception> void savepoint(Part<E> part) throws E {
    String name = "s" + ++savepoints;
    sidecar.transactions().savepoint(SavepointRequest.newBuilder().setTransactionId(id).setName(name).build());
    open++;
    try {
      part.run();
      apart(() -> release(name));
    } catch (Throwable failed) {
      if (doomed == null) apart(() -> undo(name, failed));
      throw failed;
    } finally {
      open--;
    }
  }

  /** Keeps what was done since a savepoint. */
  private void release(String name) {
    briefly().releaseSavepoint(ReleaseSavepointRequest.newBuilder().setTransactionId(id).setName(name).build());
  }

  /** Undoes what was done since a savepoint, or else the whole transaction. */
  private void undo(String name, Throwable failed) {
    try {
      briefly().rollbackToSavepoint(RollbackToSavepointRequest.newBuilder().setTransactionId(id).setName(name).build());
    } catch (PolicyException gone) {
      failed.addSuppressed(gone);
      doom("rolled back, for a savepoint could not be undone", gone);
      return;
    }
    try {
      release(name);
    } catch (PolicyException gone) {
      // One that stays set is in nobody's way.
    }
  }
}
