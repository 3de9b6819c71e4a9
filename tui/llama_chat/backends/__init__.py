"""The backend that a person chose: on this machine, at a URL, or in a cluster.

Five words, each for one thing:

- target: what the person names: `local`, a URL, `kube://namespace/service`, or a name from the configuration;
- route: how a target elsewhere is reached: its URL, or a tunnel that `kubectl port-forward` opens;
- address: the URL or the Unix socket at which requests are sent, known once a route is open or a server has started;
- client: the HTTP client of one address;
- backend: what the chat and the commands ask. It starts the server or opens the route when it is first needed, and
  does so again when the connection breaks.
"""
