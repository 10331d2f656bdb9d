package hoc.cus.policies.client;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.stream.StreamSupport;

/** What a call of a scenario has to bring. */
final class Expectation {
  private Expectation() {}

  /** Where a reply is not as expected; null where it is. */
  static String problem(JsonObject expected, ScenarioCall reply) {
    if (expected.has("error")) {
      JsonObject error = expected.getAsJsonObject("error").deepCopy();
      if (reply.refusal == null) return "it succeeded, expected " + error;
      if (error.has("fields")) {
        var sorted = new JsonArray();
        StreamSupport.stream(error.getAsJsonArray("fields").spliterator(), false).map(JsonElement::getAsString).sorted().forEach(sorted::add);
        error.add("fields", sorted);
      }
      return difference("error", error, reply.refusal);
    }
    if (reply.refusal != null) return "it was refused: " + reply.refusal;
    if (expected.has("response")) {
      String problem = difference("response", expected.get("response"), reply.stream ? reply.messages : reply.first());
      if (problem != null) return problem;
    }
    return expected.has("rows") ? rowsProblem(expected.get("rows"), reply) : null;
  }

  private static String rowsProblem(JsonElement wanted, ScenarioCall reply) {
    JsonArray rows = reply.messages;
    if (!reply.stream) {
      List<JsonElement> lists =
          reply.first().getAsJsonObject().entrySet().stream().map(Map.Entry::getValue).filter(JsonElement::isJsonArray).toList();
      if (lists.size() != 1) return "the answer has not one list whose rows could be counted";
      rows = lists.get(0).getAsJsonArray();
    }
    int least = wanted.isJsonPrimitive() ? wanted.getAsInt() : limit(wanted, "at_least", 0);
    int most = wanted.isJsonPrimitive() ? wanted.getAsInt() : limit(wanted, "at_most", Integer.MAX_VALUE);
    return rows.size() >= least && rows.size() <= most ? null : rows.size() + " rows, expected " + wanted;
  }

  private static int limit(JsonElement wanted, String name, int otherwise) {
    JsonElement set = wanted.getAsJsonObject().get(name);
    return set == null ? otherwise : set.getAsInt();
  }

  /** Where something found lacks what was expected of it; more than that it may have. */
  private static String difference(String path, JsonElement expected, JsonElement found) {
    String differs = path + " is " + found + ", expected " + expected;
    if (expected.isJsonArray()) {
      JsonArray wanted = expected.getAsJsonArray();
      if (found == null || !found.isJsonArray() || found.getAsJsonArray().size() != wanted.size()) return differs;
      for (int i = 0; i < wanted.size(); i++) {
        String problem = difference(path + "[" + i + "]", wanted.get(i), found.getAsJsonArray().get(i));
        if (problem != null) return problem;
      }
      return null;
    }
    if (!expected.isJsonObject()) return expected.equals(found) ? null : differs;
    var entries = expected.getAsJsonObject().entrySet();
    if (entries.size() == 1) {
      var only = entries.iterator().next();
      if (only.getKey().startsWith("$")) return isSpecial(only.getKey(), only.getValue(), found) ? null : differs;
    }
    if (found == null || !found.isJsonObject()) return differs;
    for (var each : entries) {
      String problem = difference(path + "." + each.getKey(), each.getValue(), found.getAsJsonObject().get(each.getKey()));
      if (problem != null) return problem;
    }
    return null;
  }

  /** Whether something found is what an object of one key that begins with `$` asks for. */
  private static boolean isSpecial(String key, JsonElement wanted, JsonElement found) {
    boolean isThere = found != null && !found.isJsonNull();
    return switch (key) {
      case "$present" -> wanted.equals(new JsonPrimitive(isThere));
      case "$contains" ->
          isThere
              && found.isJsonArray()
              && StreamSupport.stream(found.getAsJsonArray().spliterator(), false).anyMatch(each -> difference("", wanted, each) == null);
      case "$matches" ->
          isThere && found.isJsonPrimitive() && Pattern.compile(wanted.getAsString()).matcher(found.getAsString()).find();
      default -> false;
    };
  }

  /** The value at a path, `scope.scopeId` or `results.0.rows`; null where there is none. */
  static JsonElement at(JsonElement value, String path) {
    for (String key : path.split("\\.")) {
      if (value == null) return null;
      if (value.isJsonObject()) {
        value = value.getAsJsonObject().get(key);
      } else if (value.isJsonArray() && key.matches("\\d+") && Integer.parseInt(key) < value.getAsJsonArray().size()) {
        value = value.getAsJsonArray().get(Integer.parseInt(key));
      } else {
        return null;
      }
    }
    return value;
  }
}
