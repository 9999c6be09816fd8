"""What is typed after `watcher`: one module a command."""
