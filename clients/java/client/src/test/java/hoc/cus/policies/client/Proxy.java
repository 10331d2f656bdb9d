package hoc.cus.policies.client;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.List;

/** Stands between a client and the sidecar, and can keep back what is said. */
final class Proxy implements AutoCloseable {
  private final ServerSocket listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
  private final List<Socket> open = new ArrayList<>();
  private int accepted;
  private long most = Long.MAX_VALUE;
  private boolean keepRequests;
  private boolean keepAnswers;

  Proxy(String address) throws IOException {
    String[] target = address.split(":");
    start(
        () -> {
          while (true) {
            Socket near = listener.accept();
            Socket far = new Socket(target[0], Integer.parseInt(target[1]));
            synchronized (this) {
              open.addAll(List.of(near, far));
              accepted++;
            }
            start(() -> pass(near, far, true));
            start(() -> pass(far, near, false));
          }
        });
  }

  private interface Work {
    void run() throws IOException;
  }

  private static void start(Work work) {
    Thread thread =
        new Thread(
            () -> {
              try {
                work.run();
              } catch (IOException closed) {
                // Somebody has hung up.
              }
            });
    thread.setDaemon(true);
    thread.start();
  }

  private void pass(Socket from, Socket to, boolean requests) throws IOException {
    try (to) {
      byte[] piece = new byte[1 << 15];
      for (int read; (read = from.getInputStream().read(piece)) >= 0; ) {
        boolean kept;
        synchronized (this) {
          kept = requests ? keepRequests : keepAnswers;
        }
        if (!kept) to.getOutputStream().write(piece, 0, read);
        if (!requests) await(from, read);
      }
    }
  }

  /** Waits where enough has been passed on, until the connection is cut. */
  private synchronized void await(Socket from, int read) throws IOException {
    most -= read;
    try {
      while (most < 0 && open.contains(from)) wait();
    } catch (InterruptedException interrupted) {
      throw new IOException(interrupted);
    }
  }

  /** Says how many bytes of answers are passed on from now on, and no more until the next cut. */
  synchronized void pass(long bytes) {
    most = bytes;
  }

  String address() {
    return "127.0.0.1:" + listener.getLocalPort();
  }

  /** How many connections there have been. */
  synchronized int accepted() {
    return accepted;
  }

  /** Says what is kept back from now on. */
  synchronized void keep(boolean requests, boolean answers) {
    keepRequests = requests;
    keepAnswers = answers;
  }

  /** Ends the connections there are, and lets new ones speak. */
  synchronized void cut() throws IOException {
    for (Socket socket : open) socket.close();
    open.clear();
    most = Long.MAX_VALUE;
    notifyAll();
    keep(false, false);
  }

  @Override
  public void close() throws IOException {
    listener.close();
    cut();
  }
}
