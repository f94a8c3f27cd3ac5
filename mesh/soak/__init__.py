"""The proof: a mesh under faults, everything it did written down, and a judge who reads it."""
