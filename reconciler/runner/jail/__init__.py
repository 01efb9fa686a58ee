"""The jail that the engine and its providers run in: what it shows them, what it lets through, and how that is proven."""
