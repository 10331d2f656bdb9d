package hoc.cus.policies.client;

import hoc.cus.policies.v1.ExecuteRequest;
import hoc.cus.policies.v1.ExecuteResponse;
import hoc.cus.policies.v1.TransactionServiceGrpc;
import io.grpc.Channel;

/**
 * Calls each of which is its own transaction, committed before it answers. A write whose answer is lost is tried again with the
 * same idempotency key, and takes effect once.
 */
public final class SingleUse extends Services {
  SingleUse(Channel channel) {
    super(channel);
  }

  /** Runs a list of operations in one transaction and one round trip: all take effect, or none. */
  public ExecuteResponse execute(ExecuteRequest request) {
    return TransactionServiceGrpc.newBlockingStub(channel).execute(request);
  }
}
