package hoc.cus.policies.client;

import hoc.cus.policies.v1.ExecuteRequest;
import hoc.cus.policies.v1.ExecuteResponse;
import hoc.cus.policies.v1.TransactionServiceGrpc;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;

/**
 * Calls each of which is its own transaction, committed before it answers. A write whose answer is lost is tried again with the
 * same idempotency key, and takes effect once. Where no answer comes at all, {@link PolicyException#idempotencyKey} is what {@code
 * getOutcome} can be asked by.
 */
public final class SingleUse extends Services {
  SingleUse(Channel channel) {
    super(channel);
  }

  /**
   * The services for a single write, or an execute, under a key of the caller's: whoever makes it again under that key, also
   * another process, gets its first answer, and it takes effect once. Another call under the same key is refused with
   * IDEMPOTENCY_KEY_REUSED. Without this each has a new key of its own.
   *
   * @param key a UUID
   */
  public SingleUse withIdempotencyKey(String key) {
    return new SingleUse(ClientInterceptors.intercept(channel, PolicySidecar.header("idempotency-key", key)));
  }

  /** Runs a list of operations in one transaction and one round trip: all take effect, or none. */
  public ExecuteResponse execute(ExecuteRequest request) {
    return TransactionServiceGrpc.newBlockingStub(channel).execute(request);
  }
}
