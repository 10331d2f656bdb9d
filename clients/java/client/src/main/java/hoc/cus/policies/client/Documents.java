package hoc.cus.policies.client;

import java.util.Locale;

/** How documents, fields of the type Value, are told in the requests and answers of a call. */
public enum Documents {
  /** As Values, whose numbers are doubles. */
  VALUES,
  /** As their exact JSON text, the string of each Value, in which {@code 1.0} is not {@code 1}. */
  TEXT;

  String header() {
    return name().toLowerCase(Locale.ROOT);
  }
}
