"""Workers that have Terraform loaded already: made, lent to one job at a time, cleaned, and let go.

What runs in a worker (`inside`, `parcel`) knows the standard library only. Whatever goes wrong with one costs its job a step
by the engine itself, and nobody else anything.
"""
