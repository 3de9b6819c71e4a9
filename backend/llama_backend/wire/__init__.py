"""The messages between processes: requests and answers over HTTP, frames between server and engine."""
