package hoc.cus.policies.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.FieldMask;
import com.google.protobuf.Timestamp;
import com.google.protobuf.Value;
import hoc.cus.policies.client.junit.Sidecar;
import hoc.cus.policies.v1.ErrorReason;
import hoc.cus.policies.v1.ErrorReasonOuterClass;
import hoc.cus.policies.v1.ExecuteRequest;
import hoc.cus.policies.v1.FetchEvaluationByIdRequest;
import hoc.cus.policies.v1.FetchRiskCeilingsRequest;
import hoc.cus.policies.v1.FetchRiskCeilingsResponse;
import hoc.cus.policies.v1.FetchViolationsRequest;
import hoc.cus.policies.v1.FetchViolationsResponse;
import hoc.cus.policies.v1.InsertEvaluationRequest;
import hoc.cus.policies.v1.InsertPolicyVersionRequest;
import hoc.cus.policies.v1.InsertViolationRequest;
import hoc.cus.policies.v1.IsolationLevel;
import hoc.cus.policies.v1.Operation;
import hoc.cus.policies.v1.PolicyEngineServiceGrpc;
import hoc.cus.policies.v1.ReasonMeaning;
import hoc.cus.policies.v1.RiskCeilingPatch;
import hoc.cus.policies.v1.RollbackRequest;
import hoc.cus.policies.v1.StreamRiskCeilingsRequest;
import hoc.cus.policies.v1.StreamRiskCeilingsResponse;
import hoc.cus.policies.v1.StreamViolationsRequest;
import hoc.cus.policies.v1.TransactionServiceGetRequest;
import hoc.cus.policies.v1.UpdateRiskCeilingRequest;
import io.grpc.Server;
import io.grpc.ServerBuilder;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** What is tried again, what goes on, and documents as text. */
class GoesOnTest {
  @RegisterExtension static final Sidecar SIDECAR = new Sidecar();

  private static PolicySidecar client() {
    return SIDECAR.client();
  }

  private static String newId() {
    return UUID.randomUUID().toString();
  }

  private static void insert(Services services, String id) {
    services
        .policyEngine()
        .insertPolicyVersion(
            InsertPolicyVersionRequest.newBuilder().setVersionId(id).setVersion(newId()).setPolicyHash("h").setCreatedBy("t").build());
  }

  @Test
  void everyReasonOfTheContractIsTriedAgainAsItSays() {
    var rolledBack = Set.of("TRANSACTION_ROLLED_BACK", "TRANSACTION_LOST", "TRANSACTION_ELSEWHERE");
    for (var value : ErrorReason.getDescriptor().getValues()) {
      if (value.getNumber() == 0) continue;
      ReasonMeaning meaning = value.getOptions().getExtension(ErrorReasonOuterClass.meaning);
      var facts =
          new PolicyException.Facts(
              Status.Code.valueOf(meaning.getCode()),
              value.getName(),
              "",
              Map.of(),
              meaning.getRetry() ? Duration.ofMillis(1) : null,
              List.of(),
              List.of(),
              null);
      boolean expected = meaning.getRetry() || rolledBack.contains(value.getName());
      assertEquals(expected, PolicyException.of(facts).retriable(), value.getName());
    }
    // Of a connection that went away there is no reason.
    assertTrue(PolicyException.of(PolicyException.Facts.plain(Status.Code.UNAVAILABLE, "", null)).retriable());
  }

  /** A sidecar whose database is away. */
  private static final class Away extends PolicyEngineServiceGrpc.PolicyEngineServiceImplBase {
    final AtomicInteger calls = new AtomicInteger();

    @Override
    public void fetchRiskCeilings(FetchRiskCeilingsRequest request, StreamObserver<FetchRiskCeilingsResponse> answer) {
      calls.incrementAndGet();
      answer.onError(Status.UNAVAILABLE.asRuntimeException());
    }

    @Override
    public void streamRiskCeilings(StreamRiskCeilingsRequest request, StreamObserver<StreamRiskCeilingsResponse> rows) {
      calls.incrementAndGet();
      rows.onError(Status.UNAVAILABLE.asRuntimeException());
    }
  }

  // Story: this client and another tried four times, the others five, where one page promised one rule.
  @Test
  void aCallOutsideTransactionsAndAStreamAreTriedFiveTimes() throws Exception {
    var away = new Away();
    Server server = ServerBuilder.forPort(0).addService(away).build().start();
    try (var asks = PolicySidecar.connect("127.0.0.1:" + server.getPort())) {
      assertThrows(
          PolicyException.Unavailable.class,
          () -> asks.policyEngine().fetchRiskCeilings(FetchRiskCeilingsRequest.getDefaultInstance()));
      assertEquals(5, away.calls.getAndSet(0));
      try (var rows = Rows.of(asks.policyEngine()::streamRiskCeilings, StreamRiskCeilingsRequest.getDefaultInstance())) {
        assertThrows(PolicyException.Unavailable.class, () -> rows.iterator().next());
      }
      assertEquals(5, away.calls.get());
    } finally {
      server.shutdownNow();
    }
  }

  /** How work fails, and whether it is tried again then. */
  private record Case(String what, boolean again, PolicySidecar.Action<RuntimeException> fails) {}

  /** Another sidecar of the same database. */
  private static Process serve() throws Exception {
    var builder = new ProcessBuilder(Sidecar.command("serve")).redirectError(ProcessBuilder.Redirect.INHERIT);
    builder
        .environment()
        .putAll(
            Map.of(
                "DATABASE_URL", SIDECAR.database(),
                "SIDECAR_GRPC_LISTEN", "127.0.0.1:0",
                "SIDECAR_HTTP_LISTEN", "off",
                "SIDECAR_LOG_LEVEL", "error"));
    return builder.start();
  }

  @Test
  void runTriesAgainWhatWasRolledBackAndNothingElse() throws Exception {
    Process process = serve();
    String line = new BufferedReader(new InputStreamReader(process.getInputStream())).readLine();
    try (var other = PolicySidecar.connect(line.split(" +")[1])) {
      runTriesAgain(other);
    } finally {
      process.destroyForcibly().waitFor();
    }
  }

  private static void runTriesAgain(PolicySidecar other) {
    var ceiling =
        client().policyEngine().fetchRiskCeilings(FetchRiskCeilingsRequest.getDefaultInstance()).getRiskCeilings(0);
    var count =
        UpdateRiskCeilingRequest.newBuilder()
            .setCeilingId(ceiling.getId())
            .setUpdates(RiskCeilingPatch.newBuilder().setCurrentValue(1))
            .setUpdateMask(FieldMask.newBuilder().addPaths("current_value"))
            .build();
    String id = newId();
    var mine = new IllegalStateException("mine");
    var cases =
        List.of(
            new Case(
                "SERIALIZATION_FAILURE",
                true,
                tx -> {
                  client().singleUse().policyEngine().updateRiskCeiling(count);
                  tx.policyEngine().updateRiskCeiling(count);
                }),
            new Case(
                "TRANSACTION_ROLLED_BACK",
                true,
                tx -> {
                  client().transactions().rollback(RollbackRequest.newBuilder().setTransactionId(tx.id()).build());
                  insert(tx, newId());
                }),
            new Case(
                "TRANSACTION_ELSEWHERE",
                true,
                tx -> other.transactions().get(TransactionServiceGetRequest.newBuilder().setTransactionId(tx.id()).build())),
            new Case(
                "TRANSACTION_EXPIRED",
                false,
                tx -> {
                  while (true) insert(tx, newId());
                }),
            new Case(
                "TRANSACTION_UNKNOWN",
                false,
                tx -> client().transactions().get(TransactionServiceGetRequest.newBuilder().setTransactionId("none").build())),
            new Case(
                "UNIQUE_VIOLATION",
                false,
                tx -> {
                  insert(tx, id);
                  insert(tx, id);
                }),
            new Case(
                "TRANSACTION_ABORTED",
                false,
                tx -> {
                  insert(tx, id);
                  assertThrows(PolicyException.Constraint.class, () -> insert(tx, id));
                  insert(tx, newId());
                }),
            new Case("INVALID_REQUEST", false, tx -> insert(tx, "no uuid")),
            new Case(
                "mine",
                false,
                tx -> {
                  throw mine;
                }));
    for (Case each : cases) {
      var attempts = new AtomicInteger();
      var reasons = new ArrayList<String>();
      TxOptions options = TxOptions.DEFAULT.isolation(IsolationLevel.ISOLATION_LEVEL_REPEATABLE_READ);
      if (each.what.equals("TRANSACTION_EXPIRED")) options = options.totalLease(Duration.ofMillis(200));
      PolicySidecar.Action<RuntimeException> work =
          tx -> {
            if (attempts.getAndIncrement() > 0) return;
            try {
              each.fails.in(tx);
            } catch (PolicyException error) {
              reasons.add(error.reason());
              throw error;
            }
          };
      try {
        client().run(options, work);
        assertTrue(each.again, each.what);
      } catch (IllegalStateException own) {
        assertSame(mine, own);
        reasons.add("mine");
      } catch (PolicyException told) {
        assertEquals(each.what, told.reason());
      }
      assertEquals(List.of(each.what), reasons);
      assertEquals(each.again ? 2 : 1, attempts.get(), each.what);
    }
  }

  private static InsertViolationRequest violation(String tenant, String id, int seconds) {
    return InsertViolationRequest.newBuilder()
        .setViolationId(id)
        .setViolationType("x")
        .setSeverity(0.5)
        .setDescription("long ".repeat(800))
        .setTenantId(tenant)
        .setEvidence(Value.newBuilder().setStringValue("e"))
        .setRoutedToGovernor(false)
        .setDetectedAt(Timestamp.newBuilder().setSeconds(1_700_000_000L + seconds))
        .build();
  }

  /** The ids of new rows, newest first; their texts are too long for all of them to be on their way at once. */
  static List<String> rows(PolicySidecar sidecar, String tenant, int count) {
    var ids = new ArrayList<String>();
    for (int done = 0; done < count; ) {
      var some = ExecuteRequest.newBuilder();
      for (int i = 0; i < 600 && done < count; i++, done++) {
        ids.add(newId());
        some.addOperations(Operation.newBuilder().setInsertViolation(violation(tenant, ids.get(done), -2 * done)));
      }
      sidecar.singleUse().execute(some.build());
    }
    return ids;
  }

  private static List<String> rows(String tenant, int count) {
    return rows(client(), tenant, count);
  }

  @Test
  void aStreamThatIsCutGoesOnWithNothingMissingOrTwice() throws Exception {
    for (int cut : new int[] {0, 510}) isWholeWhenCutAfter(cut);
  }

  private static void isWholeWhenCutAfter(int cut) throws Exception {
    String tenant = newId();
    List<String> expected = rows(tenant, cut + 560);
    // A row between those that have come must not cost one of those that follow.
    String added = newId();
    var got = new ArrayList<String>();
    try (var between = new Proxy(SIDECAR.address());
        var through = PolicySidecar.connect(between.address())) {
      // No more may have arrived than the rows up to the next token.
      between.pass((cut + 40) * 4_200L);
      var request = StreamViolationsRequest.newBuilder().setTenantId(tenant).build();
      var rows = Rows.of(through.policyEngine()::streamViolations, request);
      for (var row : rows) {
        got.add(row.getViolation().getId());
        if (got.size() == cut + 1) {
          client().singleUse().policyEngine().insertViolation(violation(tenant, added, -2 * (cut - 5) - 1));
        }
        if (got.size() == cut + 1 || row.getViolation().getId().equals(added)) between.cut();
      }
      assertTrue(between.accepted() > 1);
    }
    assertEquals(got.size(), new HashSet<>(got).size());
    assertTrue(got.contains(added));
    got.retainAll(new HashSet<>(expected));
    assertEquals(expected, got);
  }

  private static void read(Services services, String tenant, Proxy between) throws Exception {
    var request = StreamViolationsRequest.newBuilder().setTenantId(tenant).build();
    try (var rows = Rows.of(services.policyEngine()::streamViolations, request)) {
      rows.next();
      between.cut();
      rows.forEachRemaining(row -> {});
    }
  }

  @Test
  void aStreamThatIsCutEndsWhereItShallOrIsInATransaction() throws Exception {
    String tenant = newId();
    rows(tenant, 500);
    try (var between = new Proxy(SIDECAR.address());
        var ends = PolicySidecar.builder(between.address()).streamsGoOn(false).build()) {
      assertThrows(PolicyException.Unavailable.class, () -> read(ends, tenant, between));
    }
    try (var between = new Proxy(SIDECAR.address());
        var through = PolicySidecar.connect(between.address());
        var tx = through.begin()) {
      assertThrows(PolicyException.class, () -> read(tx, tenant, between));
    }
  }

  @Test
  void aListIsReadByPages() {
    String tenant = newId();
    List<String> expected = rows(tenant, 25);
    var request = FetchViolationsRequest.newBuilder().setTenantId(tenant).setLimit(10).build();
    var pages = Pages.of(client().policyEngine()::fetchViolations, request);
    assertEquals(List.of(10, 10, 5), pages.stream().map(FetchViolationsResponse::getViolationsCount).toList());
    var got = new ArrayList<String>();
    for (var page : pages) page.getViolationsList().forEach(row -> got.add(row.getId()));
    assertEquals(expected, got);
    var wrong = Pages.of(client().policyEngine()::fetchViolations, request.toBuilder().setPageToken("no token").build());
    assertThrows(PolicyException.InvalidRequest.class, wrong.iterator()::next);
    assertThrows(
        IllegalArgumentException.class,
        () -> Pages.of(client().policyEngine()::fetchRiskCeilings, FetchRiskCeilingsRequest.getDefaultInstance()));
  }

  @Test
  void documentsAsTextAreExact() {
    String id = newId();
    String text = "{\"large\": 9007199254740993, \"whole\": 1.0}";
    try (var exact = PolicySidecar.builder(SIDECAR.address()).documents(Documents.TEXT).build()) {
      exact
          .singleUse()
          .policyEngine()
          .insertEvaluation(
              InsertEvaluationRequest.newBuilder()
                  .setEvaluationId(id)
                  .setActionType("route")
                  .setDecision("allow")
                  .setRequestContext(Value.newBuilder().setStringValue(text))
                  .setPoliciesChecked(3)
                  .setEvaluatedAt(Timestamp.newBuilder().setSeconds(1_700_000_000))
                  .build());
      var request = FetchEvaluationByIdRequest.newBuilder().setEvaluationId(id).build();
      assertEquals(text, exact.policyEngine().fetchEvaluationById(request).getEvaluation().getRequestContext().getStringValue());
      var once = client().withDocuments(Documents.TEXT).policyEngine().fetchEvaluationById(request);
      assertEquals(text, once.getEvaluation().getRequestContext().getStringValue());
      var values = exact.withDocuments(Documents.VALUES).policyEngine().fetchEvaluationById(request);
      assertTrue(values.getEvaluation().getRequestContext().hasStructValue());
      assertFalse(values.getEvaluation().getRequestContext().hasStringValue());
    }
  }
}
