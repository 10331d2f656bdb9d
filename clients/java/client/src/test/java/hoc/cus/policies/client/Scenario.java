package hoc.cus.policies.client;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import io.grpc.Channel;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** One run of a file of what holds of any sidecar; docs/contract-scenarios.md says what its keys mean. */
final class Scenario {
  private static final Pattern NAME = Pattern.compile("\\{\\{([\\w.]+)}}");
  private static final Set<String> BEGINNINGS = Set.of("TransactionService/Begin", "TransactionService/Hold");
  private static final Set<String> NOT_GRANTED = Set.of("NOT_ALLOWED", "OUTSIDE_TENANTS");

  /** It is not as it has to be. */
  static final class Failure extends Exception {
    Failure(String message) {
      super(message);
    }
  }

  /** The caller of the run may not do what the scenario does. */
  static final class NotGranted extends RuntimeException {}

  private final Channel channel;
  private final Map<String, JsonElement> variables = new HashMap<>();
  private final List<String> transactions = new ArrayList<>();
  private final Map<String, Runnable> streams = new HashMap<>();

  private Scenario(Channel channel) {
    this.channel = channel;
    variables.put("now", new JsonPrimitive(Instant.now().toString()));
    variables.put("run", new JsonPrimitive(UUID.randomUUID().toString().substring(0, 8)));
  }

  /** Runs the steps of a file, and its cleanup whatever happened. */
  static void play(Channel channel, String content) throws Exception {
    JsonObject file = JsonParser.parseString(content).getAsJsonObject();
    JsonArray cleanup = file.has("cleanup") ? file.getAsJsonArray("cleanup") : new JsonArray();
    var run = new Scenario(channel);
    try {
      run.inOrder(file.getAsJsonArray("steps"));
    } catch (Failure | RuntimeException failed) {
      run.end();
      for (JsonElement step : cleanup) {
        if (!run.knows(step)) continue;
        try {
          run.step(step);
        } catch (Failure second) {
          failed.addSuppressed(second);
        }
      }
      throw failed;
    }
    run.end();
    run.inOrder(cleanup);
  }

  private void inOrder(JsonArray steps) throws Exception {
    for (int i = 0; i < steps.size(); i++) {
      try {
        step(steps.get(i));
      } catch (Failure failure) {
        throw new Failure("step " + (i + 1) + ": " + failure.getMessage());
      }
    }
  }

  private void step(JsonElement raw) throws Exception {
    JsonObject step = fill(raw).getAsJsonObject();
    if (step.has("leave")) {
      streams.get(step.get("leave").getAsString()).run();
      return;
    }
    JsonObject expected = step.has("expect") ? step.getAsJsonObject("expect") : new JsonObject();
    long until = System.nanoTime() + (step.has("within_ms") ? step.get("within_ms").getAsLong() : 0) * 1_000_000;
    while (true) {
      ScenarioCall reply = send(step);
      String problem = Expectation.problem(expected, reply);
      if (problem == null) {
        capture(step, reply);
        return;
      }
      if (reply.refusal != null && NOT_GRANTED.contains(reply.reason())) throw new NotGranted();
      if (System.nanoTime() >= until) throw new Failure(step.get("call").getAsString() + ": " + problem);
      Thread.sleep(50);
    }
  }

  private ScenarioCall send(JsonObject step) throws Exception {
    String call = step.get("call").getAsString();
    ScenarioCall reply = ScenarioCall.of(channel, call, step);
    if (step.has("keep")) streams.put(step.get("keep").getAsString(), reply::leave);
    else reply.leave();
    JsonElement id = Expectation.at(reply.first(), "transaction.id");
    if (id != null && BEGINNINGS.contains(call)) transactions.add(id.getAsString());
    return reply;
  }

  private void capture(JsonObject step, ScenarioCall reply) throws Failure {
    if (!step.has("capture")) return;
    for (var each : step.getAsJsonObject("capture").entrySet()) {
      String path = each.getValue().getAsString();
      JsonElement value = Expectation.at(reply.first(), path);
      if (value == null) throw new Failure("the answer has no " + path);
      variables.put(each.getKey(), value);
    }
  }

  /** Leaves nothing open. */
  private void end() throws Exception {
    streams.values().forEach(Runnable::run);
    for (String id : transactions) {
      JsonObject request = new JsonObject();
      request.addProperty("transactionId", id);
      JsonObject step = new JsonObject();
      step.addProperty("call", "TransactionService/Rollback");
      step.add("request", request);
      send(step);
    }
  }

  /** Whether all that a step mentions has been captured. */
  private boolean knows(JsonElement step) {
    return NAME.matcher(step.toString()).results().map(found -> found.group(1))
        .allMatch(name -> name.startsWith("uuid.") || variables.containsKey(name));
  }

  /** The value with everything in its place; a text that is nothing but a name becomes what it stands for. */
  private JsonElement fill(JsonElement value) throws Failure {
    if (value.isJsonArray()) {
      var filled = new JsonArray();
      for (JsonElement each : value.getAsJsonArray()) filled.add(fill(each));
      return filled;
    }
    if (value.isJsonObject()) {
      var filled = new JsonObject();
      for (var each : value.getAsJsonObject().entrySet()) filled.add(each.getKey(), fill(each.getValue()));
      return filled;
    }
    if (!value.isJsonPrimitive() || !value.getAsJsonPrimitive().isString()) return value;
    Matcher names = NAME.matcher(value.getAsString());
    if (names.matches()) return get(names.group(1));
    var text = new StringBuilder();
    names.reset();
    while (names.find()) names.appendReplacement(text, Matcher.quoteReplacement(get(names.group(1)).getAsString()));
    return new JsonPrimitive(names.appendTail(text).toString());
  }

  private JsonElement get(String name) throws Failure {
    if (name.startsWith("uuid.")) variables.computeIfAbsent(name, it -> new JsonPrimitive(UUID.randomUUID().toString()));
    JsonElement value = variables.get(name);
    if (value == null) throw new Failure("nothing was captured as " + name);
    return value;
  }
}
