"""The store that several replicas share; imported only where a URL asks for it."""
