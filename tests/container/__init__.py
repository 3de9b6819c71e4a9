"""The image and the kustomize tree. What needs podman or heavy tools runs by `make test-image`."""
