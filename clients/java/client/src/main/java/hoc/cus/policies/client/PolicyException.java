package hoc.cus.policies.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.PreconditionFailure;
import com.google.rpc.RetryInfo;
import hoc.cus.policies.v1.ErrorReason;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.io.Serializable;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** A call that did not succeed; its class says what a caller can do about it. Serialized, it is without its cause. */
public class PolicyException extends RuntimeException {
  private static final Set<String> ROLLED_BACK =
      Set.of(
          ErrorReason.TRANSACTION_ROLLED_BACK.name(),
          ErrorReason.TRANSACTION_LOST.name(),
          ErrorReason.TRANSACTION_ELSEWHERE.name());

  private final Facts facts;
  private String idempotencyKey = "";

  PolicyException(Facts facts) {
    super(facts.code + (facts.reason.isEmpty() ? "" : " " + facts.reason) + ": " + facts.message, null);
    this.facts = facts;
  }

  /** What the status of a call says. */
  record Facts(
      Status.Code code,
      String reason,
      String message,
      Map<String, String> metadata,
      Duration retryAfter,
      List<BadRequest.FieldViolation> violations,
      List<PreconditionFailure.Violation> preconditions,
      Throwable cause)
      implements Serializable {
    Facts {
      metadata = Map.copyOf(metadata);
      violations = List.copyOf(violations);
      preconditions = List.copyOf(preconditions);
    }

    /** A status of gRPC, which is behind most causes, cannot be serialized. */
    private Object writeReplace() {
      return new Facts(code, reason, message, metadata, retryAfter, violations, preconditions, null);
    }

    static Facts plain(Status.Code code, String message, Throwable cause) {
      return new Facts(code, "", message, Map.of(), null, List.of(), List.of(), cause);
    }
  }

  public Status.Code code() {
    return facts.code;
  }

  /** Name of an {@link ErrorReason}, of which a newer sidecar may know more; empty where no sidecar answered. */
  public String reason() {
    return facts.reason;
  }

  public Map<String, String> metadata() {
    return facts.metadata;
  }

  /** The least delay after which it may succeed; empty where waiting is not said to help. */
  public Optional<Duration> retryAfter() {
    return Optional.ofNullable(facts.retryAfter);
  }

  /** The fields that were refused. */
  public List<BadRequest.FieldViolation> violations() {
    return facts.violations;
  }

  /** What was expected and not found. */
  public List<PreconditionFailure.Violation> preconditions() {
    return facts.preconditions;
  }

  /**
   * The key of a single-use write, or an execute, that may have taken effect, for want of an answer: {@code getOutcome} tells by it
   * whether it has, and the same call with it, by {@link SingleUse#withIdempotencyKey}, takes effect once. Empty with any other.
   */
  public String idempotencyKey() {
    return idempotencyKey;
  }

  PolicyException under(String key) {
    idempotencyKey = key;
    return this;
  }

  @Override
  public Throwable getCause() {
    return facts.cause;
  }

  /** True where a call may have taken effect although it failed. */
  boolean isUnanswered() {
    return switch (facts.code) {
      case UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED, INTERNAL -> true;
      default -> false;
    };
  }

  /**
   * True where the same call, or inside a transaction the whole of that, may succeed when it is tried again; {@code run} goes by
   * it.
   */
  public boolean retriable() {
    return facts.retryAfter != null;
  }

  /**
   * True where a call outside transactions that can be repeated may succeed then. A key makes a write take effect once, whatever
   * became of it before; a transaction that has ended is none of this call's.
   */
  boolean repeats() {
    return retriable();
  }

  /** Fields, headers or values are wrong: {@link #violations} names the fields. */
  public static class InvalidRequest extends PolicyException {
    InvalidRequest(Facts facts) {
      super(facts);
    }
  }

  /** A constraint of the database refuses the row. */
  public static class Constraint extends PolicyException {
    Constraint(Facts facts) {
      super(facts);
    }
  }

  /** The transaction collided with another one; all of it may be tried again. */
  public static class Conflict extends PolicyException {
    Conflict(Facts facts) {
      super(facts);
    }

    @Override
    public boolean retriable() {
      return true;
    }
  }

  /** The state of things does not allow it. */
  public static class Precondition extends PolicyException {
    Precondition(Facts facts) {
      super(facts);
    }
  }

  /** The transaction has ended, or there is none of that id. */
  public static class TransactionEnded extends Precondition {
    TransactionEnded(Facts facts) {
      super(facts);
    }

    /** True where it is known to be rolled back, and not for its own slowness, so that all of it may be tried again. */
    @Override
    public boolean retriable() {
      return ROLLED_BACK.contains(reason());
    }

    @Override
    boolean repeats() {
      return false;
    }
  }

  /** A statement of the transaction had failed: roll back, or back to a savepoint. */
  public static class TransactionAborted extends Precondition {
    TransactionAborted(Facts facts) {
      super(facts);
    }
  }

  /** There is no such thing. */
  public static class NotFound extends PolicyException {
    NotFound(Facts facts) {
      super(facts);
    }
  }

  /** The caller is not known. */
  public static class Unauthenticated extends PolicyException {
    Unauthenticated(Facts facts) {
      super(facts);
    }
  }

  /** The caller may not do that. */
  public static class PermissionDenied extends PolicyException {
    PermissionDenied(Facts facts) {
      super(facts);
    }
  }

  /** A limit is reached; where {@link #retriable}, only for now. */
  public static class Limit extends PolicyException {
    Limit(Facts facts) {
      super(facts);
    }
  }

  /** The sidecar or its database is not there now. */
  public static class Unavailable extends PolicyException {
    Unavailable(Facts facts) {
      super(facts);
    }

    @Override
    public boolean retriable() {
      return true;
    }
  }

  /** Its time was over. */
  public static class DeadlineExceeded extends PolicyException {
    DeadlineExceeded(Facts facts) {
      super(facts);
    }
  }

  /** Its caller ended it, or its thread was interrupted. */
  public static class Cancelled extends PolicyException {
    Cancelled(Facts facts) {
      super(facts);
    }
  }

  /** A defect of the sidecar or of what is stored, or a method that it does not have. */
  public static class Internal extends PolicyException {
    Internal(Facts facts) {
      super(facts);
    }
  }

  /** Nobody could say whether it was committed. */
  public static class OutcomeUnknown extends PolicyException {
    private final String transactionId;

    OutcomeUnknown(Facts facts) {
      super(facts);
      transactionId = "";
    }

    OutcomeUnknown(String transactionId, Throwable cause) {
      super(
          new Facts(
              Status.Code.UNAVAILABLE,
              ErrorReason.COMMIT_OUTCOME_UNKNOWN.name(),
              "whether transaction " + transactionId + " was committed is not known",
              Map.of(),
              null,
              List.of(),
              List.of(),
              cause));
      this.transactionId = transactionId;
    }

    @Override
    boolean repeats() {
      return true;
    }

    /** The transaction; empty for a single-use call. */
    public String transactionId() {
      return transactionId;
    }
  }

  /** The exception of the class that its reason, or else its code, asks for. */
  static PolicyException of(Facts facts) {
    switch (facts.reason) {
      case "UNIQUE_VIOLATION", "FOREIGN_KEY_VIOLATION", "NOT_NULL_VIOLATION", "CHECK_VIOLATION":
        return new Constraint(facts);
      case "TRANSACTION_UNKNOWN",
          "TRANSACTION_COMMITTED",
          "TRANSACTION_ROLLED_BACK",
          "TRANSACTION_EXPIRED",
          "TRANSACTION_LOST",
          "TRANSACTION_OUTCOME_UNKNOWN",
          "TRANSACTION_ELSEWHERE",
          "TRANSACTION_PREPARED":
        return new TransactionEnded(facts);
      case "TRANSACTION_ABORTED":
        return new TransactionAborted(facts);
      case "COMMIT_OUTCOME_UNKNOWN":
        return new OutcomeUnknown(facts);
      default:
        break;
    }
    return switch (facts.code) {
      case CANCELLED -> new Cancelled(facts);
      case INVALID_ARGUMENT, OUT_OF_RANGE -> new InvalidRequest(facts);
      case DEADLINE_EXCEEDED -> new DeadlineExceeded(facts);
      case NOT_FOUND -> new NotFound(facts);
      case ALREADY_EXISTS -> new Constraint(facts);
      case PERMISSION_DENIED -> new PermissionDenied(facts);
      case RESOURCE_EXHAUSTED -> new Limit(facts);
      case FAILED_PRECONDITION -> new Precondition(facts);
      case ABORTED -> new Conflict(facts);
      case UNAVAILABLE -> new Unavailable(facts);
      case UNAUTHENTICATED -> new Unauthenticated(facts);
      default -> new Internal(facts);
    };
  }

  /** The exception of a transaction that is rolled back for another one, so that its outcome is known. */
  static PolicyException of(String why, PolicyException cause) {
    Facts facts = cause.facts;
    return of(
        new Facts(
            facts.code,
            cause instanceof OutcomeUnknown ? "" : facts.reason,
            why + ": " + facts.message,
            facts.metadata,
            facts.retryAfter,
            facts.violations,
            facts.preconditions,
            cause));
  }

  /** The exception of what a stub throws. */
  static PolicyException of(StatusRuntimeException error) {
    Status.Code code = error.getStatus().getCode();
    String reason = "";
    Map<String, String> metadata = Map.of();
    Duration retryAfter = null;
    List<BadRequest.FieldViolation> violations = List.of();
    List<PreconditionFailure.Violation> preconditions = List.of();
    try {
      Metadata trailers = error.getTrailers();
      com.google.rpc.Status status = trailers == null ? null : StatusProto.fromStatusAndTrailers(error.getStatus(), trailers);
      for (Any detail : status == null ? List.<Any>of() : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          reason = detail.unpack(ErrorInfo.class).getReason();
          metadata = detail.unpack(ErrorInfo.class).getMetadataMap();
        } else if (detail.is(RetryInfo.class)) {
          var delay = detail.unpack(RetryInfo.class).getRetryDelay();
          retryAfter = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
        } else if (detail.is(BadRequest.class)) {
          violations = detail.unpack(BadRequest.class).getFieldViolationsList();
        } else if (detail.is(PreconditionFailure.class)) {
          preconditions = detail.unpack(PreconditionFailure.class).getViolationsList();
        }
      }
    } catch (InvalidProtocolBufferException unreadable) {
      error.addSuppressed(unreadable);
    }
    if (reason.isEmpty() && code == Status.Code.UNKNOWN) {
      // What a connection that went away may look like; a sidecar gives a reason.
      code = Status.Code.UNAVAILABLE;
    }
    String message = error.getStatus().getDescription();
    return of(new Facts(code, reason, message == null ? "" : message, metadata, retryAfter, violations, preconditions, error));
  }
}
