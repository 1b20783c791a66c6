"""The one hop that crosses: what the two gates say to each other, and the keys they know each other by."""
