"""What an auditor does with a region's evidence, offline and without torch: verify and report it."""
