"""Layouts as one choice for a whole graph: forms on blocks, their costs, and the cheapest cut."""
