"""Attacks on a real fleet, by name: see `drills.hostile`.

world       a fleet of real processes, the keys that attackers hold, honest rounds beside the attacks
lines       the protocols spoken by hand
plans       what a hostile coordinator or fog sends down
lists       metadata that a hostile fog serves
uploads     what a hostile edge or fog hands up
words       events, subjects, connections
guards      each guard with what stands in its place when it is switched off
place       starts a place whose guards can be switched off; nothing in the product can do that
"""
