"""A small Kubernetes REST client; it knows nothing of sandboxes."""
