"""What can be trained: each task in a room of its own."""
