import com.google.protobuf.Any;
import com.google.rpc.ErrorInfo;
import hoc.cus.policies.v1.FetchPolicyRulesRequest;
import hoc.cus.policies.v1.FlushRequest;
import hoc.cus.policies.v1.PolicyRulesReadServiceGrpc;
import hoc.cus.policies.v1.PolicyRulesServiceGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.protobuf.StatusProto;

/** Calls a sidecar through the stubs, beside grpc-java's own packages of health and error details. */
class Client {
  public static void main(String[] arguments) throws Exception {
    ManagedChannel channel = Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create()).build();
    System.out.println(HealthGrpc.newBlockingStub(channel).check(HealthCheckRequest.getDefaultInstance()).getStatus());
    FetchPolicyRulesRequest all = FetchPolicyRulesRequest.newBuilder().setTenantId("a").build();
    System.out.println(PolicyRulesReadServiceGrpc.newBlockingStub(channel).fetchPolicyRules(all).getItemsCount());
    try {
      PolicyRulesServiceGrpc.newBlockingStub(channel).flush(FlushRequest.getDefaultInstance());
    } catch (StatusRuntimeException error) {
      for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
        if (detail.is(ErrorInfo.class)) System.out.println(detail.unpack(ErrorInfo.class).getReason());
      }
    }
    channel.shutdownNow();
  }
}
