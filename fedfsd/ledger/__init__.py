"""The region's record of what it reserved and what it released."""
