"""The container runtimes of the embedded cluster: gVisor, plain processes, and scripts for tests."""
