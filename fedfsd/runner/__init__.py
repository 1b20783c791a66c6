"""The region's side of a round: the pinned process that reads the data and trains."""
