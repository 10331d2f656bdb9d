package hoc.cus.policies.client;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.Descriptors;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.util.JsonFormat;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.ServiceDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoFileDescriptorSupplier;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.util.concurrent.TimeUnit;

/** A call of a scenario, made without the client's help: messages in protobuf's JSON, or why it was refused. */
final class ScenarioCall {
  final JsonArray messages = new JsonArray();
  final boolean stream;
  /** null: it was not refused. */
  JsonObject refusal;

  private final Context.CancellableContext context = Context.current().withCancellation();

  private ScenarioCall(boolean stream) {
    this.stream = stream;
  }

  /** Ends a stream that was left open. */
  void leave() {
    context.cancel(null);
  }

  JsonElement first() {
    return messages.isEmpty() ? null : messages.get(0);
  }

  String reason() {
    return refusal.has("reason") ? refusal.get("reason").getAsString() : "";
  }

  /** Finds an RPC, `Service/Method`. */
  private static Descriptors.MethodDescriptor method(String call) throws ReflectiveOperationException {
    String[] names = call.split("/");
    String stub = names[0].equals("Health") ? "io.grpc.health.v1.HealthGrpc" : "hoc.cus.policies.v1." + names[0] + "Grpc";
    var service = (ServiceDescriptor) Class.forName(stub).getMethod("getServiceDescriptor").invoke(null);
    var file = ((ProtoFileDescriptorSupplier) service.getSchemaDescriptor()).getFileDescriptor();
    return file.findServiceByName(names[0]).findMethodByName(names[1]);
  }

  /** Makes the call of a step. */
  static ScenarioCall of(Channel channel, String call, JsonObject step) throws Exception {
    Descriptors.MethodDescriptor method = method(call);
    var request = DynamicMessage.newBuilder(method.getInputType());
    if (step.has("request")) JsonFormat.parser().merge(step.get("request").toString(), request);
    var headers = new Metadata();
    if (step.has("transaction")) headers.put(Bound.key("transaction"), step.get("transaction").getAsString());
    if (step.has("headers")) {
      for (var each : step.getAsJsonObject("headers").entrySet()) headers.put(Bound.key(each.getKey()), each.getValue().getAsString());
    }
    // A call with one answer is a stream of one.
    var generic =
        MethodDescriptor.<DynamicMessage, DynamicMessage>newBuilder()
            .setType(MethodDescriptor.MethodType.SERVER_STREAMING)
            .setFullMethodName(method.getService().getFullName() + "/" + method.getName())
            .setRequestMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(method.getInputType())))
            .setResponseMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(method.getOutputType())))
            .build();
    var signed = ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(headers));
    var options = CallOptions.DEFAULT.withDeadlineAfter(60, TimeUnit.SECONDS);
    int take = step.has("take") ? step.get("take").getAsInt() : Integer.MAX_VALUE;
    var reply = new ScenarioCall(method.isServerStreaming());
    Context before = reply.context.attach();
    try {
      var rows = ClientCalls.blockingServerStreamingCall(signed, generic, options, request.build());
      while (reply.messages.size() < take && rows.hasNext()) {
        String text = JsonFormat.printer().alwaysPrintFieldsWithNoPresence().print(rows.next());
        reply.messages.add(JsonParser.parseString(text));
      }
    } catch (StatusRuntimeException error) {
      reply.refusal = refusal(error);
    } finally {
      reply.context.detach(before);
    }
    return reply;
  }

  private static JsonObject refusal(StatusRuntimeException error) {
    PolicyException told = PolicyException.of(error);
    var refusal = new JsonObject();
    refusal.addProperty("code", error.getStatus().getCode().name());
    if (!told.reason().isEmpty()) refusal.addProperty("reason", told.reason());
    refusal.addProperty("message", error.getStatus().getDescription());
    var metadata = new JsonObject();
    told.metadata().forEach(metadata::addProperty);
    refusal.add("metadata", metadata);
    var fields = new JsonArray();
    told.violations().stream().map(each -> each.getField()).sorted().forEach(fields::add);
    refusal.add("fields", fields);
    refusal.addProperty("retry", told.retryAfter().isPresent());
    refusal.addProperty("preconditions", told.preconditions().size());
    return refusal;
  }
}
