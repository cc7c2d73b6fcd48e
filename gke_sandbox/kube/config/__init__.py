"""Find a cluster: kubeconfig files, the pod's service account, overrides."""
