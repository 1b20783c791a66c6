"""What is a federation of fleets with cameras worth, and what does each car's privacy cost it?

``python -m experiments.camera_fleet`` renders fleets, chooses settings on stand-ins and climbs the ladder.
"""
