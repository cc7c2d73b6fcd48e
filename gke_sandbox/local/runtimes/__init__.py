"""What runs a container of the embedded cluster: gVisor, a process, or a script."""
