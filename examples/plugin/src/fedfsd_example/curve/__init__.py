"""A task: from a small image of a lane line to how much the road curves."""
