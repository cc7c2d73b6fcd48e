"""The controllers of the embedded cluster: Jobs, scheduler, kubelet, garbage collection."""
