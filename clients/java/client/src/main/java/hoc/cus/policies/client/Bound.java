package hoc.cus.policies.client;

import com.google.protobuf.DescriptorProtos.MethodOptions;
import hoc.cus.policies.v1.Access;
import hoc.cus.policies.v1.MethodAccess;
import hoc.cus.policies.v1.TransactionServiceGrpc;
import io.grpc.Attributes;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.ClientStreamTracer;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ForwardingClientCallListener.SimpleForwardingClientCallListener;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoMethodDescriptorSupplier;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.time.Duration;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;

/**
 * Makes all calls of a channel belong to one transaction, or to none: it alone writes the headers. Blocking stubs over it throw
 * {@link PolicyException}.
 */
final class Bound implements ClientInterceptor {
  static final String SINGLE_USE = "single-use";
  /** How often a call outside transactions is tried. */
  static final int ATTEMPTS = 5;

  private static final Metadata.Key<String> TRANSACTION = key("transaction");
  private static final Metadata.Key<String> DOCUMENTS = key("documents");
  private static final Metadata.Key<String> IDEMPOTENCY_KEY = key("idempotency-key");

  private final String transaction;
  private final PolicySidecar.Builder client;
  private final Duration timeout;

  /** @param transaction value of the header; null: none */
  Bound(String transaction, PolicySidecar.Builder client) {
    this.transaction = transaction;
    this.client = client;
    this.timeout = client.timeout;
  }

  static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }

  @Override
  public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions asked, Channel next) {
    CallOptions options = client.waitForReady ? asked.withWaitForReady() : asked;
    return method.getType() == MethodDescriptor.MethodType.UNARY
        ? new Unary<>(method, options, next)
        : new Streaming<>(method, options, next);
  }

  /** Writes what says where a call belongs. */
  private void sign(Metadata headers) {
    if (client.documents != null && !headers.containsKey(DOCUMENTS)) {
      headers.put(DOCUMENTS, client.documents.header());
    }
    headers.discardAll(TRANSACTION);
    if (transaction == null) return;
    headers.put(TRANSACTION, transaction);
    if (transaction.equals(SINGLE_USE) && !headers.containsKey(IDEMPOTENCY_KEY)) {
      headers.put(IDEMPOTENCY_KEY, UUID.randomUUID().toString());
    }
  }

  /** Whether the calls are those of an open transaction. */
  private boolean isInside() {
    return transaction != null && !transaction.equals(SINGLE_USE);
  }

  /** Whether a call that may have been made can be made again for what it does. */
  private boolean isIdempotent(MethodDescriptor<?, ?> method) {
    return optionsOf(method).getIdempotencyLevel() != MethodOptions.IdempotencyLevel.IDEMPOTENCY_UNKNOWN;
  }

  /** The key under which a call takes effect once, that of a write, or an execute, which is its own transaction; else empty. */
  private String keyOf(MethodDescriptor<?, ?> method, Metadata headers) {
    boolean writes = optionsOf(method).getExtension(Access.access) == MethodAccess.METHOD_ACCESS_WRITE;
    if (isInside() || !writes && !method.equals(TransactionServiceGrpc.getExecuteMethod())) return "";
    return Objects.requireNonNullElse(headers.get(IDEMPOTENCY_KEY), "");
  }

  private static MethodOptions optionsOf(MethodDescriptor<?, ?> method) {
    return method.getSchemaDescriptor() instanceof ProtoMethodDescriptorSupplier supplier
        ? supplier.getMethodDescriptor().getOptions()
        : MethodOptions.getDefaultInstance();
  }

  /**
   * Makes the call, as often as it takes, at the moment when its request is complete: a blocking stub waits for it anyway, and
   * what is thrown here is what its caller gets.
   */
  private final class Unary<Q, A> extends ClientCall<Q, A> {
    private final MethodDescriptor<Q, A> method;
    private final CallOptions options;
    private final Channel next;
    private Listener<A> listener;
    private Metadata headers;
    private Q request;
    private boolean unanswered;

    Unary(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
      this.method = method;
      this.options = options;
      this.next = next;
    }

    @Override
    public void start(Listener<A> listener, Metadata headers) {
      this.listener = listener;
      this.headers = headers;
      sign(headers);
    }

    @Override
    public void sendMessage(Q message) {
      request = message;
    }

    @Override
    public void halfClose() {
      Deadline set = Retry.sooner(options.getDeadline(), Context.current().getDeadline());
      Deadline deadline = set != null ? set : Deadline.after(timeout.toMillis(), TimeUnit.MILLISECONDS);
      var answerHeaders = new AtomicReference<Metadata>();
      var trailers = new AtomicReference<Metadata>();
      Channel captured =
          ClientInterceptors.intercept(
              next,
              MetadataUtils.newCaptureMetadataInterceptor(answerHeaders, trailers),
              MetadataUtils.newAttachHeadersInterceptor(headers));
      String key = keyOf(method, headers);
      Retry.Work<A, RuntimeException> attempt =
          () -> {
            try {
              return ClientCalls.blockingUnaryCall(captured, method, options.withDeadline(deadline), request);
            } catch (StatusRuntimeException error) {
              PolicyException told = PolicyException.of(error);
              // A later attempt that was refused says nothing of an earlier one.
              unanswered |= told.reason().isEmpty() || told.isUnanswered();
              throw unanswered ? told.under(key) : told;
            }
          };
      boolean repeatable = !key.isEmpty() || !isInside() && isIdempotent(method);
      A answer = repeatable ? Retry.retry(ATTEMPTS, deadline, PolicyException::repeats, attempt) : attempt.run();
      listener.onHeaders(answerHeaders.get() == null ? new Metadata() : answerHeaders.get());
      listener.onMessage(answer);
      listener.onClose(Status.OK, trailers.get() == null ? new Metadata() : trailers.get());
    }

    @Override
    public void request(int messages) {}

    @Override
    public void cancel(String message, Throwable cause) {}
  }

  /** A stream has no deadline of its own, and shall not wait for a connection without end, nor for a transaction to begin. */
  private final class Streaming<Q, A> extends SimpleForwardingClientCall<Q, A> {
    private final CompletableFuture<Void> begun;

    private Streaming(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
      this(method, options, next, new CompletableFuture<>());
    }

    private Streaming(MethodDescriptor<Q, A> method, CallOptions options, Channel next, CompletableFuture<Void> begun) {
      super(next.newCall(method, options.withStreamTracerFactory(new Beginning(method, begun))));
      this.begun = begun;
    }

    @Override
    public void start(Listener<A> listener, Metadata headers) {
      sign(headers);
      AtomicBoolean goesOn = Rows.GOES_ON.get();
      if (goesOn != null) goesOn.set(client.streamsGoOn && !isInside());
      super.start(
          new SimpleForwardingClientCallListener<>(listener) {
            @Override
            public void onClose(Status status, Metadata trailers) {
              begun.complete(null);
              super.onClose(status, trailers);
            }
          },
          headers);
      // Nobody may read on to the end of what was left.
      Context context = Context.current();
      Context.CancellationListener left = ended -> begun.complete(null);
      context.addListener(left, Runnable::run);
      // With its completion the timer lets go of the call.
      begun.whenComplete((nothing, late) -> context.removeListener(left));
      begun
          .orTimeout(timeout.toMillis(), TimeUnit.MILLISECONDS)
          .exceptionallyAsync(
              late -> {
                cancel(LATE, null);
                return null;
              });
    }
  }

  /** Notices when a stream has begun: that of a transaction with its first message, any other with its connection. */
  private static final class Beginning extends ClientStreamTracer.Factory {
    private final boolean isTransaction;
    private final CompletableFuture<Void> begun;

    Beginning(MethodDescriptor<?, ?> method, CompletableFuture<Void> begun) {
      isTransaction = method.equals(TransactionServiceGrpc.getHoldMethod());
      this.begun = begun;
    }

    @Override
    public ClientStreamTracer newClientStreamTracer(ClientStreamTracer.StreamInfo info, Metadata headers) {
      return new ClientStreamTracer() {
        @Override
        public void streamCreated(Attributes transport, Metadata headers) {
          if (!isTransaction) begun.complete(null);
        }

        @Override
        public void inboundMessage(int number) {
          begun.complete(null);
        }
      };
    }
  }

  /** How a stream that did not begin ends; {@link Rows} knows it. */
  static final String LATE = "it did not begin within the timeout";
}
