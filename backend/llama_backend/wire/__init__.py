"""The messages between processes: HTTP between client and server, frames on a socket between server and engine."""
