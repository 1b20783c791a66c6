"""A model, a reader, a strategy and a task of one's own for fedfsd, each as small as it can be."""
