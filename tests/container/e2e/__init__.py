"""A real cluster, where E2E_CONTEXT names a context of the kubeconfig; see container/README.md."""
