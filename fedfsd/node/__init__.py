"""A real region: its folder and settings, its officer's documents, its approvals and its status."""
