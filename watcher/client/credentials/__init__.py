"""Where keys and tokens come from, one module a source."""
