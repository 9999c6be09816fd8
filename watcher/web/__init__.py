"""The HTTP server: paths, TLS, who is let in; nothing about jobs."""
