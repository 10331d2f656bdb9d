package hoc.cus.policies.client;

import hoc.cus.policies.v1.CommitRequest;
import hoc.cus.policies.v1.ErrorReason;
import hoc.cus.policies.v1.ExecuteRequest;
import hoc.cus.policies.v1.ExecuteResponse;
import hoc.cus.policies.v1.GetOutcomeRequest;
import hoc.cus.policies.v1.HoldRequest;
import hoc.cus.policies.v1.HoldResponse;
import hoc.cus.policies.v1.Outcome;
import hoc.cus.policies.v1.ReleaseSavepointRequest;
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
 * An open transaction; what its services do is inside it, one call at a time. Closing it without {@link #commit} rolls back, and so
 * does, at once, the end of its process.
 */
public final class Tx extends Services implements AutoCloseable {
  private final PolicySidecar sidecar;
  private final Rows<HoldResponse> held;
  private final String id;
  private boolean ended;
  private int savepoints;

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
   */
  public String commit() {
    ended = true;
    Trailers trailers = new Trailers();
    try {
      sidecar.transactions().withInterceptors(trailers).commit(CommitRequest.newBuilder().setTransactionId(id).build());
    } catch (PolicyException error) {
      boolean unknown =
          switch (error.code()) {
            case UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED, INTERNAL -> true;
            default -> error.reason().equals(ErrorReason.TRANSACTION_OUTCOME_UNKNOWN.name());
          };
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

  /** Rolls back unless it was committed; never throws. */
  @Override
  public void close() {
    if (ended) return;
    ended = true;
    apart(
        () -> {
          try {
            sidecar
                .transactions()
                .withDeadlineAfter(Math.min(sidecar.timeout.toMillis(), 5_000), TimeUnit.MILLISECONDS)
                .rollback(RollbackRequest.newBuilder().setTransactionId(id).build());
          } catch (PolicyException gone) {
            // The end of the stream rolls it back.
          } finally {
            held.close();
          }
        });
  }

  /** A part that may fail alone. */
  @FunctionalInterface
  public interface Part<E extends Exception> {
    void run() throws E;
  }

  /** Runs a part, and undoes what it did when it throws, which is passed on; the transaction goes on. May be nested. */
  public <E extends Exception> void savepoint(Part<E> part) throws E {
    String name = "s" + ++savepoints;
    var service = sidecar.transactions();
    service.savepoint(SavepointRequest.newBuilder().setTransactionId(id).setName(name).build());
    var release = ReleaseSavepointRequest.newBuilder().setTransactionId(id).setName(name).build();
    try {
      part.run();
    } catch (Throwable failed) {
      try {
        service.rollbackToSavepoint(
            RollbackToSavepointRequest.newBuilder().setTransactionId(id).setName(name).build());
        service.releaseSavepoint(release);
      } catch (PolicyException gone) {
        failed.addSuppressed(gone);
      }
      throw failed;
    }
    service.releaseSavepoint(release);
  }
}
