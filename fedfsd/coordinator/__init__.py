"""A coordinator for real: its folder, its gate, the Flower engine behind it, and its commands."""
