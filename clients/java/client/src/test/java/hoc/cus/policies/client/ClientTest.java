package hoc.cus.policies.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.FieldMask;
import com.google.protobuf.ListValue;
import com.google.protobuf.Struct;
import com.google.protobuf.Timestamp;
import com.google.protobuf.Value;
import example.Engine;
import hoc.cus.policies.client.junit.Sidecar;
import hoc.cus.policies.v1.CommitPreparedRequest;
import hoc.cus.policies.v1.ExecuteRequest;
import hoc.cus.policies.v1.FetchEvaluationByIdRequest;
import hoc.cus.policies.v1.FetchPolicyVersionByIdRequest;
import hoc.cus.policies.v1.FetchRiskCeilingsRequest;
import hoc.cus.policies.v1.FetchTemporalMetricTotalRequest;
import hoc.cus.policies.v1.FetchTemporalMetricTotalResponse;
import hoc.cus.policies.v1.FetchViolationsRequest;
import hoc.cus.policies.v1.GetOutcomeRequest;
import hoc.cus.policies.v1.InsertEvaluationRequest;
import hoc.cus.policies.v1.InsertPolicyVersionRequest;
import hoc.cus.policies.v1.IsolationLevel;
import hoc.cus.policies.v1.ListPreparedRequest;
import hoc.cus.policies.v1.NewTemporalMetricEvent;
import hoc.cus.policies.v1.Operation;
import hoc.cus.policies.v1.Outcome;
import hoc.cus.policies.v1.RecordTemporalMetricEventRequest;
import hoc.cus.policies.v1.ResetRiskCeilingRequest;
import hoc.cus.policies.v1.RiskCeiling;
import hoc.cus.policies.v1.RiskCeilingPatch;
import hoc.cus.policies.v1.RollbackPreparedRequest;
import hoc.cus.policies.v1.RollbackRequest;
import hoc.cus.policies.v1.RollbackToSavepointRequest;
import hoc.cus.policies.v1.SavepointRequest;
import hoc.cus.policies.v1.StreamRiskCeilingsRequest;
import hoc.cus.policies.v1.StreamViolationsRequest;
import hoc.cus.policies.v1.TransactionServiceGetRequest;
import hoc.cus.policies.v1.TransactionServiceListRequest;
import hoc.cus.policies.v1.UpdateRiskCeilingRequest;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.Context;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.lang.ref.WeakReference;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.api.io.TempDir;

class ClientTest {
  @RegisterExtension static final Sidecar SIDECAR = new Sidecar();

  private final List<AutoCloseable> afterwards = new ArrayList<>();

  @AfterEach
  void end() throws Exception {
    for (int i = afterwards.size(); i-- > 0; ) afterwards.get(i).close();
  }

  private <T extends AutoCloseable> T later(T thing) {
    afterwards.add(thing);
    return thing;
  }

  private static PolicySidecar client() {
    return SIDECAR.client();
  }

  private static String newId() {
    return UUID.randomUUID().toString();
  }

  private static InsertPolicyVersionRequest version(String id) {
    return InsertPolicyVersionRequest.newBuilder()
        .setVersionId(id)
        .setVersion(id.substring(0, 8))
        .setPolicyHash("hash")
        .setCreatedBy("test")
        .build();
  }

  private static boolean stored(String id) {
    var request = FetchPolicyVersionByIdRequest.newBuilder().setVersionId(id).build();
    return client().policyEngine().fetchPolicyVersionById(request).hasPolicyVersion();
  }

  private static List<RiskCeiling> ceilings(Services services) {
    return services.policyEngine().fetchRiskCeilings(FetchRiskCeilingsRequest.getDefaultInstance()).getRiskCeilingsList();
  }

  private static void eventually(Callable<Boolean> holds) throws Exception {
    for (long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(60); !holds.call(); Thread.sleep(10)) {
      assertTrue(System.nanoTime() < end, "never");
    }
  }

  /** Starts another sidecar of the same database. */
  private Process serve(String address, Map<String, String> env) throws Exception {
    var builder = new ProcessBuilder(Sidecar.command("serve")).redirectError(ProcessBuilder.Redirect.INHERIT);
    builder.environment().putAll(env);
    builder
        .environment()
        .putAll(
            Map.of(
                "DATABASE_URL", SIDECAR.database(),
                "SIDECAR_GRPC_LISTEN", address,
                "SIDECAR_HTTP_LISTEN", "off",
                "SIDECAR_LOG_LEVEL", "error"));
    Process process = builder.start();
    later(() -> process.destroyForcibly().waitFor());
    // The call to try is the last thing that a start prints.
    var lines = new BufferedReader(new InputStreamReader(process.getInputStream()));
    for (String line; (line = lines.readLine()) != null && !line.startsWith("try "); ) {}
    return process;
  }

  private Path folder() throws Exception {
    Path folder = Files.createTempDirectory("sidecar");
    later(
        () -> {
          try (var files = Files.list(folder)) {
            for (Path file : files.toList()) Files.deleteIfExists(file);
          }
          Files.delete(folder);
        });
    return folder;
  }

  private <T> Future<T> meanwhile(Callable<T> work) {
    var threads = Executors.newCachedThreadPool();
    later(threads::shutdownNow);
    return threads.submit(work);
  }

  @Test
  void twoWritesAreCommittedTogether() {
    String one = newId();
    String two = newId();
    try (Tx tx = client().begin(TxOptions.DEFAULT.label("two"))) {
      tx.policyEngine().insertPolicyVersion(version(one));
      tx.policyEngine().insertPolicyVersion(version(two));
      assertFalse(stored(one));
      tx.commit();
    }
    assertTrue(stored(one) && stored(two));
  }

  @Test
  void anExceptionRollsBackAndIsPassedOn() {
    String id = newId();
    var mine = new java.io.IOException("mine");
    var thrown =
        assertThrows(
            java.io.IOException.class,
            () ->
                client()
                    .run(
                        tx -> {
                          tx.policyEngine().insertPolicyVersion(version(id));
                          throw mine;
                        }));
    assertSame(mine, thrown);
    assertFalse(stored(id));
  }

  @Test
  void closingWithoutCommitRollsBack() {
    String id = newId();
    try (Tx tx = client().begin()) {
      tx.policyEngine().insertPolicyVersion(version(id));
    }
    assertFalse(stored(id));
    assertTrue(client().transactions().list(TransactionServiceListRequest.getDefaultInstance()).getTransactionsList().isEmpty());
  }

  @Test
  void aSavepointUndoesItsOwnAndNoMore() {
    var ids = List.of(newId(), newId(), newId(), newId());
    client()
        .run(
            tx -> {
              tx.policyEngine().insertPolicyVersion(version(ids.get(0)));
              tx.savepoint(
                  () -> {
                    tx.policyEngine().insertPolicyVersion(version(ids.get(1)));
                    assertThrows(
                        PolicyException.Constraint.class,
                        () ->
                            tx.savepoint(
                                () -> {
                                  tx.policyEngine().insertPolicyVersion(version(ids.get(2)));
                                  tx.policyEngine().insertPolicyVersion(version(ids.get(0)));
                                }));
                  });
              tx.policyEngine().insertPolicyVersion(version(ids.get(3)));
            });
    assertEquals(List.of(true, true, false, true), ids.stream().map(ClientTest::stored).toList());
  }

  private static void insert(Tx tx, String id) {
    tx.policyEngine().insertPolicyVersion(version(id));
  }

  /** A caller whose time was over, or who was interrupted, had the half of a savepoint committed. */
  @Test
  void aSavepointEndsAsItsPartWhateverHasBecomeOfItsThread() {
    var ids = List.of(newId(), newId(), newId(), newId());
    var mine = new IllegalStateException("mine");
    client()
        .run(
            tx -> {
              insert(tx, ids.get(0));
              tx.savepoint(
                  () -> {
                    insert(tx, ids.get(1));
                    Thread.currentThread().interrupt();
                  });
              assertTrue(Thread.interrupted());
              Tx.Part<RuntimeException> interrupted =
                  () -> {
                    insert(tx, ids.get(2));
                    Thread.currentThread().interrupt();
                    throw mine;
                  };
              assertSame(mine, assertThrows(IllegalStateException.class, () -> tx.savepoint(interrupted)));
              assertTrue(Thread.interrupted());
              var context = Context.current().withCancellation();
              Tx.Part<RuntimeException> cancelled =
                  () -> {
                    insert(tx, ids.get(3));
                    context.cancel(null);
                    throw mine;
                  };
              context.run(
                  () -> assertSame(mine, assertThrows(IllegalStateException.class, () -> tx.savepoint(cancelled))));
              assertEquals(0, mine.getSuppressed().length);
            });
    assertEquals(List.of(true, true, false, false), ids.stream().map(ClientTest::stored).toList());
  }

  /** A savepoint that could not be undone was told to work that took that for dealt with, and half of it was committed. */
  @Test
  void whatASavepointCannotUndoIsNeverCommitted() throws Exception {
    String id = newId();
    var mine = new IllegalStateException("mine");
    var transactions = client().transactions();
    try (Tx tx = client().begin()) {
      transactions.savepoint(SavepointRequest.newBuilder().setTransactionId(tx.id()).setName("outer").build());
      // With this one the sidecar forgets those that were set after it.
      var outer = RollbackToSavepointRequest.newBuilder().setTransactionId(tx.id()).setName("outer").build();
      var thrown =
          assertThrows(
              IllegalStateException.class,
              () ->
                  tx.savepoint(
                      () -> {
                        transactions.rollbackToSavepoint(outer);
                        insert(tx, id);
                        throw mine;
                      }));
      assertSame(mine, thrown);
      assertInstanceOf(PolicyException.Precondition.class, mine.getSuppressed()[0]);
      var why = assertThrows(PolicyException.Precondition.class, tx::commit);
      assertEquals("SAVEPOINT_UNKNOWN", why.reason());
      assertFalse(why.retriable());
    }
    assertFalse(stored(id));
  }

  private static boolean isPrepared(String id) {
    var list = client().transactions().listPrepared(ListPreparedRequest.getDefaultInstance());
    return list.getTransactionsList().stream().anyMatch(each -> each.getId().equals(id));
  }

  private static String prepared(String id, RuntimeException then) {
    var attempts = new AtomicInteger();
    var prepared = new ArrayList<String>();
    PolicySidecar.Action<RuntimeException> work =
        tx -> {
          attempts.incrementAndGet();
          insert(tx, id);
          assertEquals(Duration.ofMinutes(1), tx.prepare(Duration.ofMinutes(1)));
          prepared.add(tx.id());
          if (then != null) throw then;
        };
    if (then == null) client().run(work);
    else assertSame(then, assertThrows(RuntimeException.class, () -> client().run(work)));
    assertEquals(1, attempts.get());
    assertFalse(stored(id));
    assertTrue(isPrepared(prepared.get(0)));
    return prepared.get(0);
  }

  /** What its work had prepared was to be committed again by its end. */
  @Test
  void aPreparedTransactionIsLeftToItsCaller() {
    String one = newId();
    String two = newId();
    var first = CommitPreparedRequest.newBuilder().setTransactionId(prepared(one, null)).build();
    client().transactions().commitPrepared(first);
    var away = PolicyException.of(PolicyException.Facts.plain(Status.Code.UNAVAILABLE, "away", null));
    var second = RollbackPreparedRequest.newBuilder().setTransactionId(prepared(two, away)).build();
    client().transactions().rollbackPrepared(second);
    assertTrue(stored(one));
    assertFalse(stored(two));
    try (Tx tx = client().begin()) {
      assertThrows(PolicyException.Precondition.class, () -> tx.savepoint(() -> tx.prepare(null)));
    }
  }

  /** One that nobody knew of would have kept its locks until its lease ended. */
  @Test
  void aTransactionThatMayBePreparedIsRolledBack() throws Exception {
    Proxy between = later(new Proxy(SIDECAR.address()));
    PolicySidecar through = later(PolicySidecar.connect(between.address()));
    String id = newId();
    var context = Context.current().withCancellation();
    try (Tx tx = through.begin()) {
      insert(tx, id);
      between.keep(false, true);
      var preparing = meanwhile(context.wrap((Callable<Duration>) () -> tx.prepare(null)));
      eventually(() -> isPrepared(tx.id()));
      context.cancel(null);
      assertInstanceOf(PolicyException.Cancelled.class, assertThrows(ExecutionException.class, preparing::get).getCause());
      between.cut();
      assertThrows(PolicyException.Cancelled.class, tx::commit);
      assertFalse(isPrepared(tx.id()));
    }
    assertFalse(stored(id));
  }

  /** With a proxy that kept the connection alive before a sidecar that said nothing, a transaction began for ever. */
  @Test
  void aTransactionThatDoesNotBeginIsLate() throws Exception {
    Proxy between = later(new Proxy(SIDECAR.address()));
    PolicySidecar through =
        later(PolicySidecar.builder(between.address()).timeout(Duration.ofSeconds(1)).keepalive(Duration.ZERO).build());
    // Connects.
    through
        .policyEngine()
        .withDeadlineAfter(1, TimeUnit.MINUTES)
        .fetchRiskCeilings(FetchRiskCeilingsRequest.getDefaultInstance());
    between.keep(false, true);
    Future<Tx> begun = meanwhile(through::begin);
    var late = assertThrows(ExecutionException.class, () -> begun.get(1, TimeUnit.MINUTES));
    assertInstanceOf(PolicyException.DeadlineExceeded.class, late.getCause());
    eventually(
        () ->
            client().transactions().list(TransactionServiceListRequest.getDefaultInstance()).getTransactionsList().isEmpty());
  }

  /** Notes the calls that the client makes for a stub, as long as somebody holds them. */
  private static ClientInterceptor noting(List<WeakReference<?>> calls) {
    return new ClientInterceptor() {
      @Override
      public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
        ClientCall<Q, A> call = next.newCall(method, options);
        calls.add(new WeakReference<>(call));
        return call;
      }
    };
  }

  private static void read(PolicySidecar sidecar, ClientInterceptor noting, boolean toItsEnd) {
    var stub = sidecar.policyEngine().withInterceptors(noting);
    try (var rows = Rows.of(stub::streamRiskCeilings, StreamRiskCeilingsRequest.getDefaultInstance())) {
      if (toItsEnd) assertTrue(rows.stream().count() > 1);
    }
  }

  /** The wait for a connection held each stream, with all that it had brought, until its time was over. */
  @Test
  void aStreamThatHasEndedIsLetGoOf() throws Exception {
    var calls = new ArrayList<WeakReference<?>>();
    PolicySidecar patient = later(PolicySidecar.builder(SIDECAR.address()).timeout(Duration.ofHours(1)).build());
    PolicySidecar alone =
        later(PolicySidecar.builder("unix:" + folder().resolve("s")).timeout(Duration.ofHours(1)).build());
    read(patient, noting(calls), true);
    read(alone, noting(calls), false);
    assertEquals(2, calls.size());
    eventually(
        () -> {
          System.gc();
          return calls.stream().allMatch(call -> call.get() == null);
        });
  }

  @Test
  void aCallCannotLeaveItsTransaction() {
    var refused =
        assertThrows(
            PolicyException.Precondition.class, () -> client().policyEngine().insertPolicyVersion(version(newId())));
    assertEquals("TRANSACTION_REQUIRED", refused.reason());
    Tx late = client().<Tx, RuntimeException>call(tx -> tx);
    assertThrows(
        PolicyException.TransactionEnded.class, () -> late.policyEngine().insertPolicyVersion(version(newId())));
  }

  @Test
  void runBeginsAgainAfterAConflict() throws Exception {
    RiskCeiling ceiling = ceilings(client()).get(0);
    var both = new CyclicBarrier(2);
    var attempts = new AtomicInteger();
    Callable<Void> count =
        () -> {
          var first = new AtomicInteger();
          client()
              .run(
                  TxOptions.SERIALIZABLE,
                  tx -> {
                    attempts.incrementAndGet();
                    double now = ceilings(tx).get(0).getCurrentValue();
                    if (first.getAndIncrement() == 0) both.await();
                    tx.policyEngine()
                        .updateRiskCeiling(
                            UpdateRiskCeilingRequest.newBuilder()
                                .setCeilingId(ceiling.getId())
                                .setUpdates(RiskCeilingPatch.newBuilder().setCurrentValue(now + 1))
                                .setUpdateMask(FieldMask.newBuilder().addPaths("current_value"))
                                .build());
                  });
          return null;
        };
    Future<Void> one = meanwhile(count);
    Future<Void> two = meanwhile(count);
    one.get();
    two.get();
    assertTrue(attempts.get() > 2);
    assertEquals(2, ceilings(client()).get(0).getCurrentValue() - ceiling.getCurrentValue());
  }

  @Test
  void executeRunsInsideATransaction() {
    String one = newId();
    String two = newId();
    try (Tx tx = client().begin()) {
      tx.execute(ExecuteRequest.newBuilder().addOperations(Operation.newBuilder().setInsertPolicyVersion(version(one))).build());
    }
    client()
        .singleUse()
        .execute(ExecuteRequest.newBuilder().addOperations(Operation.newBuilder().setInsertPolicyVersion(version(two))).build());
    assertFalse(stored(one));
    assertTrue(stored(two));
  }

  @Test
  void valuesComeBackAsTheyWere() {
    String id = newId();
    Value document =
        Value.newBuilder()
            .setStructValue(
                Struct.newBuilder()
                    .putFields(
                        "list",
                        Value.newBuilder()
                            .setListValue(
                                ListValue.newBuilder()
                                    .addValues(Value.newBuilder().setNumberValue(1.5))
                                    .addValues(Value.newBuilder().setNullValueValue(0))
                                    .addValues(Value.newBuilder().setStringValue("ü")))
                            .build()))
            .build();
    Timestamp at = Timestamp.newBuilder().setSeconds(1_700_000_000).setNanos(1_000).build();
    client()
        .singleUse()
        .policyEngine()
        .insertEvaluation(
            InsertEvaluationRequest.newBuilder()
                .setEvaluationId(id)
                .setActionType("route")
                .setDecision("allow")
                .setRequestContext(document)
                .setPoliciesChecked(3)
                .setEvaluatedAt(at)
                .build());
    var got =
        client().policyEngine().fetchEvaluationById(FetchEvaluationByIdRequest.newBuilder().setEvaluationId(id).build()).getEvaluation();
    assertEquals(document, got.getRequestContext());
    assertEquals(at, got.getEvaluatedAt());
    assertFalse(got.hasAgentId());
  }

  private static PolicyException.InvalidRequest refused() {
    return assertThrows(
        PolicyException.InvalidRequest.class,
        () ->
            client()
                .singleUse()
                .policyEngine()
                .insertEvaluation(InsertEvaluationRequest.newBuilder().setEvaluationId("no uuid").build()));
  }

  @Test
  void refusedFieldsAreNamed() {
    var refused = refused();
    var fields = refused.violations().stream().map(violation -> violation.getField()).toList();
    assertTrue(fields.containsAll(List.of("evaluation_id", "decision")), fields.toString());
    assertEquals("INVALID_REQUEST", refused.reason());
    assertFalse(refused.retriable());
    assertNotNull(refused.getCause());
  }

  @Test
  void aTransactionIsWhatItsOptionsSay() {
    var options =
        TxOptions.DEFAULT
            .isolation(IsolationLevel.ISOLATION_LEVEL_SERIALIZABLE)
            .readOnly(true)
            .deferrable(true)
            .totalLease(Duration.ofSeconds(90))
            .label("as its options say");
    try (Tx tx = client().begin(options)) {
      var request = TransactionServiceGetRequest.newBuilder().setTransactionId(tx.id()).build();
      var is = client().transactions().get(request).getTransaction();
      assertEquals(IsolationLevel.ISOLATION_LEVEL_SERIALIZABLE, is.getIsolationLevel());
      assertTrue(is.getReadOnly() && is.getDeferrable());
      assertEquals(90, is.getTotalLease().getSeconds());
      assertEquals("as its options say", is.getLabel());
      var refused =
          assertThrows(PolicyException.class, () -> tx.policyEngine().insertPolicyVersion(version(newId())));
      assertEquals("READ_ONLY_TRANSACTION", refused.reason());
    }
  }

  @Test
  void runTriesAsOftenAsItIsTold() {
    var tries = new AtomicInteger();
    PolicySidecar.Action<RuntimeException> work =
        tx -> {
          tries.incrementAndGet();
          client().transactions().rollback(RollbackRequest.newBuilder().setTransactionId(tx.id()).build());
          tx.policyEngine().insertPolicyVersion(version(newId()));
        };
    var ended = assertThrows(PolicyException.class, () -> client().run(TxOptions.DEFAULT.attempts(3), work));
    assertEquals("TRANSACTION_ROLLED_BACK", ended.reason());
    assertEquals(3, tries.get());
  }

  @Test
  void aConstraintAndARowCountAreTold() {
    String id = newId();
    var services = client().singleUse().policyEngine();
    services.insertPolicyVersion(version(id));
    var twice = assertThrows(PolicyException.Constraint.class, () -> services.insertPolicyVersion(version(id)));
    assertTrue(twice.metadata().containsKey("constraint"));
    var operation =
        Operation.newBuilder().setResetRiskCeiling(ResetRiskCeilingRequest.newBuilder().setCeilingId(newId())).setExpectedRows(1);
    var other =
        assertThrows(
            PolicyException.Precondition.class,
            () -> client().singleUse().execute(ExecuteRequest.newBuilder().addOperations(operation).build()));
    assertEquals(1, other.preconditions().size());
    assertEquals("0", other.metadata().get("found"));
  }

  private static long streamsUnderWay() {
    return client().transactions().list(TransactionServiceListRequest.getDefaultInstance()).getTransactionsList().stream()
        .filter(each -> each.getLabel().startsWith("stream "))
        .count();
  }

  @Test
  void closingAStreamEarlyCancelsIt() throws Exception {
    String tenant = newId();
    GoesOnTest.rows(client(), tenant, 1_000);
    var request = StreamViolationsRequest.newBuilder().setTenantId(tenant).build();
    try (var rows = Rows.of(client().policyEngine()::streamViolations, request)) {
      assertTrue(rows.next().hasViolation());
      eventually(() -> streamsUnderWay() == 1);
    }
    eventually(() -> streamsUnderWay() == 0);
    try (var rows = Rows.of(client().policyEngine()::streamViolations, request).stream()) {
      assertEquals(1_000, rows.count());
    }
    var refused = StreamViolationsRequest.newBuilder().setSeverityMin(Double.NaN).build();
    try (var rows = Rows.of(client().policyEngine()::streamViolations, refused)) {
      assertThrows(PolicyException.InvalidRequest.class, rows::next);
    }
  }

  @Test
  void aCallHasADeadline() throws Exception {
    String nobody = "unix:" + folder().resolve("s");
    PolicySidecar patient = later(PolicySidecar.builder(nobody).timeout(Duration.ofMillis(300)).build());
    assertThrows(PolicyException.DeadlineExceeded.class, () -> ceilings(patient));
    assertThrows(PolicyException.DeadlineExceeded.class, patient::begin);
    var rows = Rows.of(patient.policyEngine()::streamRiskCeilings, StreamRiskCeilingsRequest.getDefaultInstance());
    assertThrows(PolicyException.DeadlineExceeded.class, rows::hasNext);
    PolicySidecar hasty =
        later(PolicySidecar.builder(nobody).waitForReady(false).build());
    assertThrows(PolicyException.Unavailable.class, () -> ceilings(hasty));
    var ended = Context.current().withCancellation();
    ended.cancel(null);
    ended.run(() -> assertThrows(PolicyException.Cancelled.class, () -> ceilings(client())));
  }

  @Test
  void aTokenIsShownOverASocket(@TempDir Path files) throws Exception {
    byte[] hash = MessageDigest.getInstance("SHA-256").digest("secret".getBytes());
    Path tokens = Files.writeString(files.resolve("tokens"), "engine: " + HexFormat.of().formatHex(hash) + "\n");
    String address = "unix:" + folder().resolve("s");
    serve(address, Map.of("SIDECAR_TOKENS_FILE", tokens.toString()));
    PolicySidecar known = later(PolicySidecar.builder(address).token("secret").build());
    known.run(
        tx ->
            assertEquals(
                "engine",
                known
                    .transactions()
                    .get(TransactionServiceGetRequest.newBuilder().setTransactionId(tx.id()).build())
                    .getTransaction()
                    .getCaller()));
    PolicySidecar unknown = later(PolicySidecar.connect(address));
    assertThrows(PolicyException.Unauthenticated.class, () -> ceilings(unknown));
  }

  @Test
  void consistencyIsAskedAndTrailersAreRead() {
    var trailers = new Trailers();
    client()
        .withConsistency("eventual")
        .policyEngine()
        .withInterceptors(trailers)
        .fetchRiskCeilings(FetchRiskCeilingsRequest.getDefaultInstance());
    assertEquals("", trailers.consistencyToken());
    assertEquals(List.of(), trailers.inexactValues());
    assertThrows(PolicyException.InvalidRequest.class, () -> ceilings(client().withConsistency("no token of ours ÿ")));
  }

  private static PolicyException carried(PolicyException error) throws Exception {
    var bytes = new ByteArrayOutputStream();
    try (var out = new ObjectOutputStream(bytes)) {
      out.writeObject(error);
    }
    try (var in = new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray()))) {
      return (PolicyException) in.readObject();
    }
  }

  /** What crossed to another process failed on its way, or with the first question there. */
  @Test
  void anExceptionSaysTheSameInAnotherProcess() throws Exception {
    var refused = refused();
    PolicyException there = assertInstanceOf(PolicyException.InvalidRequest.class, carried(refused));
    assertEquals(refused.getMessage(), there.getMessage());
    assertEquals(refused.code(), there.code());
    assertEquals(refused.reason(), there.reason());
    assertEquals(refused.metadata(), there.metadata());
    assertEquals(refused.violations(), there.violations());
    assertEquals(refused.retryAfter(), there.retryAfter());
    assertFalse(there.retriable());
    var unknown =
        assertInstanceOf(PolicyException.OutcomeUnknown.class, carried(new PolicyException.OutcomeUnknown("id", refused)));
    assertEquals("id", unknown.transactionId());
    assertFalse(unknown.retriable());
  }

  @Test
  void anUnknownReasonHasTheClassOfItsCode() {
    var facts =
        new PolicyException.Facts(
            Status.Code.ABORTED, "OF_A_NEWER_SIDECAR", "", Map.of(), null, List.of(), List.of(), null);
    assertInstanceOf(PolicyException.Conflict.class, PolicyException.of(facts));
  }

  @Test
  void aCommitWhoseAnswerIsLostIsFoundCommitted() throws Exception {
    Proxy between = later(new Proxy(SIDECAR.address()));
    PolicySidecar through = later(PolicySidecar.connect(between.address()));
    String id = newId();
    var attempts = new AtomicInteger();
    Future<Void> committed =
        meanwhile(
            () -> {
              through.run(
                  tx -> {
                    attempts.incrementAndGet();
                    tx.policyEngine().insertPolicyVersion(version(id));
                    between.keep(false, true);
                  });
              return null;
            });
    eventually(() -> stored(id));
    between.cut();
    committed.get();
    assertEquals(1, attempts.get());
  }

  @Test
  void aCommitThatNeverArrivedIsTriedAgain() throws Exception {
    Proxy between = later(new Proxy(SIDECAR.address()));
    PolicySidecar through = later(PolicySidecar.connect(between.address()));
    String id = newId();
    var attempts = new AtomicInteger();
    through.run(
        tx -> {
          tx.policyEngine().insertPolicyVersion(version(id));
          if (attempts.incrementAndGet() > 1) return;
          between.keep(true, false);
          CompletableFuture.delayedExecutor(100, TimeUnit.MILLISECONDS)
              .execute(
                  () -> {
                    try {
                      between.cut();
                    } catch (java.io.IOException error) {
                      throw new java.io.UncheckedIOException(error);
                    }
                  });
        });
    assertEquals(2, attempts.get());
    assertTrue(stored(id));
  }

  @Test
  void anOutcomeThatNobodyTellsIsUnknown() throws Exception {
    Proxy between = later(new Proxy(SIDECAR.address()));
    PolicySidecar through =
        later(PolicySidecar.builder(between.address()).timeout(Duration.ofSeconds(1)).build());
    try (Tx tx = through.begin()) {
      between.keep(false, true);
      var unknown = assertThrows(PolicyException.OutcomeUnknown.class, tx::commit);
      assertEquals(tx.id(), unknown.transactionId());
      assertFalse(unknown.retriable());
    }
  }

  @Test
  void aWriteWhoseAnswerIsLostTakesEffectOnce() throws Exception {
    Proxy between = later(new Proxy(SIDECAR.address()));
    PolicySidecar through = later(PolicySidecar.connect(between.address()));
    ceilings(through);
    String policy = newId();
    Callable<FetchTemporalMetricTotalResponse> total =
        () ->
            client()
                .policyEngine()
                .fetchTemporalMetricTotal(
                    FetchTemporalMetricTotalRequest.newBuilder().setPolicyId(policy).setWindowSeconds(3600).build());
    between.keep(false, true);
    var recorded =
        meanwhile(
            () ->
                through
                    .singleUse()
                    .policyEngine()
                    .recordTemporalMetricEvent(
                        RecordTemporalMetricEventRequest.newBuilder()
                            .setEvent(NewTemporalMetricEvent.newBuilder().setPolicyId(policy).setMetric("cost").setValue(2.5))
                            .build()));
    eventually(() -> total.call().getEventCount() > 0);
    between.cut();
    assertEquals(1, recorded.get().getRowsAffected());
    assertEquals(1, total.call().getEventCount());
  }

  /** The client had made the key, and thrown it away: nobody could ask whether the write had taken effect. */
  @Test
  void aWriteWhoseAnswerNeverCameIsAskedForByItsKey() throws Exception {
    Proxy between = later(new Proxy(SIDECAR.address()));
    PolicySidecar through = later(PolicySidecar.connect(between.address()));
    ceilings(through);
    between.keep(false, true);
    String id = newId();
    var context = Context.current().withCancellation();
    Callable<?> write = () -> through.singleUse().policyEngine().insertPolicyVersion(version(id));
    Future<?> written = meanwhile(context.wrap(write));
    eventually(() -> stored(id));
    context.cancel(null);
    var failed = assertThrows(ExecutionException.class, written::get).getCause();
    String key = assertInstanceOf(PolicyException.Cancelled.class, failed).idempotencyKey();
    var request = GetOutcomeRequest.newBuilder().setIdempotencyKey(key).build();
    assertEquals(Outcome.OUTCOME_COMMITTED, client().transactions().getOutcome(request).getOutcome());
  }

  @Test
  void aCallerBringsAKeyOfItsOwn() {
    String policy = newId();
    var event = NewTemporalMetricEvent.newBuilder().setPolicyId(policy).setMetric("cost").setValue(2.5);
    var request = RecordTemporalMetricEventRequest.newBuilder().setEvent(event).build();
    SingleUse keyed = client().singleUse().withIdempotencyKey(newId());
    for (int i = 0; i < 2; i++) assertEquals(1, keyed.policyEngine().recordTemporalMetricEvent(request).getRowsAffected());
    var total = FetchTemporalMetricTotalRequest.newBuilder().setPolicyId(policy).setWindowSeconds(3600).build();
    assertEquals(1, client().policyEngine().fetchTemporalMetricTotal(total).getEventCount());
    var reused =
        assertThrows(
            PolicyException.Precondition.class, () -> keyed.policyEngine().insertPolicyVersion(version(newId())));
    assertEquals("IDEMPOTENCY_KEY_REUSED", reused.reason());
    assertEquals("", reused.idempotencyKey());
  }

  @Test
  void aSidecarThatIsKilledIsToldAndCallsWorkWhenItIsBack() throws Exception {
    String address = "unix:" + folder().resolve("s");
    Process first = serve(address, Map.of());
    PolicySidecar local = later(PolicySidecar.connect(address));
    String one = newId();
    String two = newId();
    try (Tx tx = local.begin()) {
      tx.policyEngine().insertPolicyVersion(version(one));
      first.destroyForcibly().waitFor();
      var again = tx.policyEngine().withDeadlineAfter(1, TimeUnit.SECONDS);
      var told = assertThrows(PolicyException.class, () -> again.insertPolicyVersion(version(one)));
      assertTrue(
          told instanceof PolicyException.Unavailable || told instanceof PolicyException.DeadlineExceeded, told.toString());
    }
    serve(address, Map.of());
    local.run(tx -> { tx.policyEngine().insertPolicyVersion(version(two)); });
    assertFalse(stored(one));
    assertTrue(stored(two));
  }

  @Test
  void theExampleRecordsWhatItDecides() {
    assertEquals("allow", Engine.decide(client(), "cost_per_hour", 0));
    assertEquals("block", Engine.decide(client(), "cost_per_hour", 1e9));
    var violations = client().policyEngine().fetchViolations(FetchViolationsRequest.getDefaultInstance());
    assertEquals(1, violations.getViolationsCount());
  }
}
