"""What every long-running process needs: supervision, structured logs, metrics on loopback."""
