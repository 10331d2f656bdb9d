package hoc.cus.policies.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import hoc.cus.policies.client.junit.Sidecar;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

class ScenariosTest {
  @RegisterExtension static final Sidecar SIDECAR = new Sidecar();

  /** The folder in POLICY_SIDECAR_SCENARIOS, or else that of the checkout around this one. */
  private static Path folder() {
    String named = System.getenv("POLICY_SIDECAR_SCENARIOS");
    return Path.of(named == null || named.isEmpty() ? "../../../scenarios" : named);
  }

  @Test
  void theScenariosOfTheContractHold() throws Exception {
    ManagedChannel channel = Grpc.newChannelBuilder(SIDECAR.address(), InsecureChannelCredentials.create()).build();
    int passed = 0;
    int skipped = 0;
    var problems = new ArrayList<String>();
    try (var files = Files.newDirectoryStream(folder(), "*.json")) {
      for (Path file : files) {
        if (file.toString().endsWith(".schema.json")) continue;
        try {
          Scenario.play(channel, Files.readString(file));
          passed++;
        } catch (Scenario.NotGranted left) {
          skipped++;
        } catch (Scenario.Failure failure) {
          problems.add(file.getFileName() + ": " + failure.getMessage());
        }
      }
    } finally {
      channel.shutdownNow();
    }
    assertEquals(List.of(), problems);
    assertTrue(passed > 0);
    System.out.printf("scenarios: %d passed, %d skipped%n", passed, skipped);
  }
}
