"""Benchmarks of gke-sandbox, next to what a user could pick instead: ``python -m benchmarks --help``."""
