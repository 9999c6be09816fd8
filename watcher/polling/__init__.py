"""Asks what is due, judges what comes back, and shows the present state."""
