package hoc.cus.policies.client.junit;

import hoc.cus.policies.client.PolicySidecar;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.extension.AfterAllCallback;
import org.junit.jupiter.api.extension.BeforeAllCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/**
 * A sidecar with a database of its own for the tests of a class, {@code @RegisterExtension static Sidecar}. It is started by the
 * command in POLICY_SIDECAR_COMMAND, words separated by blanks, or else by {@code npx policy-sidecar}, and ends with the tests,
 * or with their process.
 */
public final class Sidecar implements BeforeAllCallback, AfterAllCallback {
  private Process process;
  private PolicySidecar client;
  private String line;

  /** The command that starts a sidecar. */
  public static List<String> command(String... arguments) {
    String words = System.getenv("POLICY_SIDECAR_COMMAND");
    var command = new ArrayList<>(List.of((words == null || words.isBlank() ? "npx policy-sidecar" : words.strip()).split("\\s+")));
    command.addAll(List.of(arguments));
    return command;
  }

  @Override
  public void beforeAll(ExtensionContext context) throws IOException {
    process =
        new ProcessBuilder(command("serve", "--ephemeral")).redirectError(ProcessBuilder.Redirect.INHERIT).start();
    line = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8)).readLine();
    if (line == null) throw new IOException("it did not start: " + String.join(" ", command()));
    client = PolicySidecar.connect(address());
  }

  /** A client for it. */
  public PolicySidecar client() {
    return client;
  }

  /** Where it answers gRPC, {@code host:port}. */
  public String address() {
    return field("grpc");
  }

  /** URL of its PostgreSQL. */
  public String database() {
    return field("database");
  }

  private String field(String name) {
    Matcher found = Pattern.compile('"' + name + "\":\"([^\"]*)\"").matcher(line);
    if (!found.find()) throw new IllegalStateException("no " + name + " in " + line);
    return found.group(1);
  }

  @Override
  public void afterAll(ExtensionContext context) throws InterruptedException {
    if (client != null) client.close();
    if (process == null) return;
    try {
      process.getOutputStream().close();
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
    if (!process.waitFor(20, TimeUnit.SECONDS)) process.destroyForcibly();
  }
}
