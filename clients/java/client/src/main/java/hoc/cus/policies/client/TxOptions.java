package hoc.cus.policies.client;

import hoc.cus.policies.v1.BeginRequest;
import hoc.cus.policies.v1.IsolationLevel;
import java.time.Duration;

/**
 * How a transaction is to be run.
 *
 * @param isolation how strictly it is shielded from others; null: READ COMMITTED
 * @param readOnly refuses writes
 * @param deferrable waits for a snapshot on which reading never conflicts; with SERIALIZABLE and readOnly
 * @param totalLease the longest life; null: what the sidecar is configured for
 * @param label a free text for logs and lists, at most 128 characters
 * @param attempts how often {@code run} and {@code call} try
 */
public record TxOptions(
    IsolationLevel isolation, boolean readOnly, boolean deferrable, Duration totalLease, String label, int attempts) {
  /** READ COMMITTED, with the leases of the sidecar, tried five times. */
  public static final TxOptions DEFAULT = new TxOptions(null, false, false, null, "", 5);

  /** As if transactions ran one after the other. */
  public static final TxOptions SERIALIZABLE =
      DEFAULT.isolation(IsolationLevel.ISOLATION_LEVEL_SERIALIZABLE);

  public TxOptions isolation(IsolationLevel level) {
    return new TxOptions(level, readOnly, deferrable, totalLease, label, attempts);
  }

  public TxOptions readOnly(boolean only) {
    return new TxOptions(isolation, only, deferrable, totalLease, label, attempts);
  }

  public TxOptions deferrable(boolean waits) {
    return new TxOptions(isolation, readOnly, waits, totalLease, label, attempts);
  }

  public TxOptions totalLease(Duration lease) {
    return new TxOptions(isolation, readOnly, deferrable, lease, label, attempts);
  }

  public TxOptions label(String text) {
    return new TxOptions(isolation, readOnly, deferrable, totalLease, text, attempts);
  }

  public TxOptions attempts(int most) {
    return new TxOptions(isolation, readOnly, deferrable, totalLease, label, most);
  }

  BeginRequest request() {
    BeginRequest.Builder begin =
        BeginRequest.newBuilder().setReadOnly(readOnly).setDeferrable(deferrable).setLabel(label);
    if (isolation != null) begin.setIsolationLevel(isolation);
    if (totalLease != null) {
      begin.getTotalLeaseBuilder().setSeconds(totalLease.getSeconds()).setNanos(totalLease.getNano());
    }
    return begin.build();
  }
}
