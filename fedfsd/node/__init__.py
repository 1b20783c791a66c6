"""A region for real: its folder and settings, its officer's papers, what it approves, where it stands."""
