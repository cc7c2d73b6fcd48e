"""Code that the embedded cluster and the cassettes share: parsed API requests and response bodies."""
