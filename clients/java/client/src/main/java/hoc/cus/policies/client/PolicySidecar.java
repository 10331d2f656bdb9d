package hoc.cus.policies.client;

import hoc.cus.policies.v1.TransactionServiceGrpc;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.ConnectivityState;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.MetadataUtils;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * Calls a sidecar; one is enough for all threads. Its own services make reads outside any transaction: a write through them is
 * refused with TRANSACTION_REQUIRED. All of its stubs throw {@link PolicyException}, streaming ones by way of {@link Rows}.
 */
public final class PolicySidecar extends Services implements AutoCloseable {
  /** Called where neither an address nor the environment variable POLICY_SIDECAR names another. */
  public static final String DEFAULT_ADDRESS = "127.0.0.1:50051";

  /** How soon a sidecar that was away is looked for again. */
  private static final Executor SOON = CompletableFuture.delayedExecutor(500, TimeUnit.MILLISECONDS);

  private final ManagedChannel connection;
  private final Channel authorized;
  private final Builder builder;
  final Duration timeout;

  private PolicySidecar(ManagedChannel connection, Channel authorized, Builder builder) {
    super(ClientInterceptors.intercept(authorized, new Bound(null, builder)));
    this.connection = connection;
    this.authorized = authorized;
    this.builder = builder;
    this.timeout = builder.timeout;
    lookAgain();
  }

  /** A client for the address in POLICY_SIDECAR, or else {@link #DEFAULT_ADDRESS}. */
  public static PolicySidecar connect() {
    String address = System.getenv("POLICY_SIDECAR");
    return connect(address == null || address.isEmpty() ? DEFAULT_ADDRESS : address);
  }

  /** A client for {@code host:port}, or on Linux {@code unix:/path}; it connects with the first call. */
  public static PolicySidecar connect(String address) {
    return new Builder(address).build();
  }

  /** A client that is told more. */
  public static Builder builder(String address) {
    return new Builder(address);
  }

  /** How a client calls. What is not said is good for a sidecar in the same pod. */
  public static final class Builder {
    private final String address;
    private String token = "";
    private ChannelCredentials credentials = InsecureChannelCredentials.create();
    private Duration keepalive = Duration.ofSeconds(20);
    private int maxMessageBytes = 64 << 20;
    Duration timeout = Duration.ofSeconds(30);
    boolean waitForReady = true;
    boolean streamsGoOn = true;
    Documents documents;

    private Builder(String address) {
      this.address = address;
    }

    /** Bearer token. */
    public Builder token(String token) {
      this.token = token;
      return this;
    }

    /** The authorities to trust and the certificate to show: {@link TlsChannelCredentials}. Default: no TLS. */
    public Builder credentials(ChannelCredentials credentials) {
      this.credentials = credentials;
      return this;
    }

    /**
     * Deadline of every call that has none, streams excepted: for them it bounds the wait for a connection, and for the beginning
     * of a transaction. Default: 30 s.
     */
    public Builder timeout(Duration timeout) {
      this.timeout = timeout;
      return this;
    }

    /** How often a connection with calls is asked whether it lives; zero: never. Default: 20 s. */
    public Builder keepalive(Duration keepalive) {
      this.keepalive = keepalive;
      return this;
    }

    /** The largest answer taken. Default: 64 MiB. */
    public Builder maxMessageBytes(int bytes) {
      this.maxMessageBytes = bytes;
      return this;
    }

    /** Whether a call without a connection waits for one until its deadline, or fails at once. Default: it waits. */
    public Builder waitForReady(boolean waits) {
      this.waitForReady = waits;
      return this;
    }

    /** How documents are told. Default: {@link Documents#VALUES}. */
    public Builder documents(Documents documents) {
      this.documents = documents;
      return this;
    }

    /** Whether {@link Rows} outside transactions go on by themselves where their stream is cut. Default: they do. */
    public Builder streamsGoOn(boolean goOn) {
      this.streamsGoOn = goOn;
      return this;
    }

    public PolicySidecar build() {
      // What the environment says of proxies is about the way out of the pod.
      var channel =
          Grpc.newChannelBuilder(address, credentials)
              .maxInboundMessageSize(maxMessageBytes)
              .proxyDetector(target -> null)
              .disableServiceConfigLookUp();
      if (!keepalive.isZero()) {
        channel.keepAliveTime(keepalive.toMillis(), TimeUnit.MILLISECONDS).keepAliveTimeout(10, TimeUnit.SECONDS);
      }
      // A path would go out as the name of the host, which is none.
      if (address.startsWith("unix:")) channel.overrideAuthority("localhost");
      ManagedChannel connection = channel.build();
      return new PolicySidecar(
          connection,
          token.isEmpty() ? connection : ClientInterceptors.intercept(connection, header("authorization", "Bearer " + token)),
          this);
    }
  }

  /** The services so that the documents of their calls are told in that way, whatever the client says. */
  public Services withDocuments(Documents documents) {
    return new Services(ClientInterceptors.intercept(channel, header("documents", documents.header()))) {};
  }

  static ClientInterceptor header(String name, String value) {
    Metadata headers = new Metadata();
    headers.put(Bound.key(name), value);
    return MetadataUtils.newAttachHeadersInterceptor(headers);
  }

  Channel bound(String transaction) {
    return ClientInterceptors.intercept(authorized, new Bound(transaction, builder));
  }

  /** Else the channel would leave a sidecar that is back alone for up to two minutes. */
  private void lookAgain() {
    ConnectivityState state = connection.getState(false);
    if (state == ConnectivityState.SHUTDOWN) return;
    if (state == ConnectivityState.TRANSIENT_FAILURE) SOON.execute(connection::resetConnectBackoff);
    connection.notifyWhenStateChanged(state, this::lookAgain);
  }

  /** Ends the connection and with it what is under way; open transactions are rolled back. */
  @Override
  public void close() {
    connection.shutdownNow();
  }

  /**
   * The service that deals with transactions itself, for what this class has no words for: get, list, getOutcome,
   * commitPrepared, rollbackPrepared. What prepare of it prepares, {@link #run} does not know of: {@link Tx} has its own.
   */
  public TransactionServiceGrpc.TransactionServiceBlockingStub transactions() {
    return TransactionServiceGrpc.newBlockingStub(channel);
  }

  /** The services so that each call is its own transaction. */
  public SingleUse singleUse() {
    return new SingleUse(bound(Bound.SINGLE_USE));
  }

  /**
   * The services for reads that see at least that: {@code strong} all that was committed before, {@code eventual} what a replica
   * has, or a token: all that was committed before it was given.
   */
  public Services withConsistency(String consistency) {
    return new Services(ClientInterceptors.intercept(channel, header("consistency", consistency))) {};
  }

  /** Begins a transaction, to be used in {@code try (Tx tx = …) { … tx.commit(); }}. */
  public Tx begin(TxOptions options) {
    return Tx.begin(this, options);
  }

  public Tx begin() {
    return begin(TxOptions.DEFAULT);
  }

  /** What is done in a transaction, and gives something. */
  @FunctionalInterface
  public interface Work<R, E extends Exception> {
    R in(Tx tx) throws E;
  }

  /** What is done in a transaction. */
  @FunctionalInterface
  public interface Action<E extends Exception> {
    void in(Tx tx) throws E;
  }

  /**
   * Runs it in a transaction, commits at its end, and rolls back when it throws, which is passed on. What the work has prepared is
   * left as it is, and not begun anew.
   *
   * <p>While that fails with what is {@link PolicyException#retriable}, it begins anew, not beyond the deadline of the current
   * {@link Context}: so the work may run several times, and what it does elsewhere must bear that.
   *
   * @throws PolicyException.OutcomeUnknown where the answer to the commit was lost, and nobody could tell what became of it
   */
  public <R, E extends Exception> R call(TxOptions options, Work<R, E> work) throws E {
    var prepared = new AtomicBoolean();
    return Retry.<R, E>retry(
        options.attempts(),
        Context.current().getDeadline(),
        error -> !prepared.get() && error.retriable(),
        () -> {
          try (Tx tx = begin(options)) {
            try {
              R result = work.in(tx);
              if (!tx.isPrepared()) tx.commit();
              return result;
            } finally {
              prepared.set(tx.isPrepared());
            }
          }
        });
  }

  public <R, E extends Exception> R call(Work<R, E> work) throws E {
    return call(TxOptions.DEFAULT, work);
  }

  /** As {@link #call}, of work that gives nothing. */
  public <E extends Exception> void run(TxOptions options, Action<E> action) throws E {
    this.<Void, E>call(
        options,
        tx -> {
          action.in(tx);
          return null;
        });
  }

  public <E extends Exception> void run(Action<E> action) throws E {
    run(TxOptions.DEFAULT, action);
  }
}
