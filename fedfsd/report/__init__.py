"""What a person reads of a run: the run folder, its page, its pictures, runs compared."""
