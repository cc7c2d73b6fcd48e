"""Everything that travels to and from the pod: manifests, payload, runner, frames."""
