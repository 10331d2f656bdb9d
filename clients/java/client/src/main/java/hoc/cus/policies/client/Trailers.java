package hoc.cus.policies.client;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.stub.MetadataUtils;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;

/** What comes after an answer: {@code stub.withInterceptors(trailers)}, and then the last call of that stub. */
public final class Trailers implements ClientInterceptor {
  private static final Metadata.Key<String> TOKEN = Bound.key("consistency-token");
  private static final Metadata.Key<String> INEXACT = Bound.key("inexact-values");

  private final AtomicReference<Metadata> last = new AtomicReference<>();
  private final ClientInterceptor capture = MetadataUtils.newCaptureMetadataInterceptor(new AtomicReference<>(), last);

  @Override
  public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
    return capture.interceptCall(method, options, next);
  }

  /** For {@link PolicySidecar#withConsistency}, of a single-use write; empty where the sidecar has no replicas. */
  public String consistencyToken() {
    String token = last.get() == null ? null : last.get().get(TOKEN);
    return token == null ? "" : token;
  }

  /** The stored values that did not fit their fields: {@code schema.table.column[key]=how}. */
  public List<String> inexactValues() {
    String values = last.get() == null ? null : last.get().get(INEXACT);
    return values == null ? List.of() : List.of(values.split(", "));
  }
}
