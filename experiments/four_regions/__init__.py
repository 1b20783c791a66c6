"""What is a federation worth to four regions, and what does each vehicle's privacy cost it?

``python -m experiments.four_regions`` climbs the ladder of ``rung.LADDER``. ``choose`` chooses a recipe on
generated traffic alone, and ``fresh`` runs it once on vehicles that nothing was tried on.
"""
