"""What is a federation worth to four regions, and what does each vehicle's privacy cost it?

``python -m experiments.four_regions`` climbs the ladder of ``rung.LADDER``;
``python -m experiments.four_regions.search`` is the search that its settings were held against.
"""
