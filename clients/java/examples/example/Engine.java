package example;

import com.google.protobuf.Struct;
import com.google.protobuf.Timestamp;
import com.google.protobuf.Value;
import hoc.cus.policies.client.PolicySidecar;
import hoc.cus.policies.client.TxOptions;
import hoc.cus.policies.v1.FetchRiskCeilingsRequest;
import hoc.cus.policies.v1.InsertEvaluationRequest;
import hoc.cus.policies.v1.InsertViolationRequest;
import hoc.cus.policies.v1.RiskCeiling;
import java.time.Instant;
import java.util.List;
import java.util.UUID;

/**
 * An engine that holds one action against the risk ceilings, and records what it decided: the evaluation, and a violation of each
 * ceiling that the action would breach, all or nothing.
 */
public final class Engine {
  private Engine() {}

  public static void main(String[] arguments) {
    try (PolicySidecar client = PolicySidecar.connect()) {
      System.out.println(decide(client, arguments[0], Double.parseDouble(arguments[1])));
    }
  }

  /** Reads, judges and records in one transaction. A conflict, or a sidecar that goes away, makes it begin again. */
  public static String decide(PolicySidecar client, String metric, double amount) {
    return client.call(
        TxOptions.SERIALIZABLE.label("engine"),
        tx -> {
          List<RiskCeiling> ceilings =
              tx.policyEngine().fetchRiskCeilings(FetchRiskCeilingsRequest.getDefaultInstance()).getRiskCeilingsList();
          List<RiskCeiling> breached =
              ceilings.stream()
                  .filter(ceiling -> ceiling.getMetric().equals(metric))
                  .filter(ceiling -> ceiling.getCurrentValue() + amount > ceiling.getMaxValue())
                  .toList();
          String decision = breached.isEmpty() ? "allow" : "block";
          String evaluation = UUID.randomUUID().toString();
          Timestamp now = Timestamp.newBuilder().setSeconds(Instant.now().getEpochSecond()).build();
          Value asked =
              Value.newBuilder()
                  .setStructValue(
                      Struct.newBuilder()
                          .putFields("metric", Value.newBuilder().setStringValue(metric).build())
                          .putFields("amount", Value.newBuilder().setNumberValue(amount).build()))
                  .build();
          tx.policyEngine()
              .insertEvaluation(
                  InsertEvaluationRequest.newBuilder()
                      .setEvaluationId(evaluation)
                      .setActionType("execute")
                      .setDecision(decision)
                      .setRequestContext(asked)
                      .setPoliciesChecked(ceilings.size())
                      .setEvaluatedAt(now)
                      .build());
          for (RiskCeiling ceiling : breached) {
            tx.policyEngine()
                .insertViolation(
                    InsertViolationRequest.newBuilder()
                        .setViolationId(UUID.randomUUID().toString())
                        .setEvaluationId(evaluation)
                        .setPolicyName(ceiling.getName())
                        .setViolationType("risk_ceiling_breach")
                        .setSeverity(0.8)
                        .setDescription(amount + " more of " + metric + " is above " + ceiling.getMaxValue())
                        .setEvidence(asked)
                        .setRoutedToGovernor(false)
                        .setDetectedAt(now)
                        .build());
          }
          return decision;
        });
  }
}
