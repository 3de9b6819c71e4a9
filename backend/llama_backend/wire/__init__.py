"""What processes say to each other: requests and answers over HTTP, frames between server and engine."""
