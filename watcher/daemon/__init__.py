"""The running daemon: what is in force, what is watched, and how it all hangs together."""
