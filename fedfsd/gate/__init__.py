"""The region's own check of everything that comes in or goes out."""
