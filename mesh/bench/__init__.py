"""Load for a running mesh, and the figures of what it answers: `mesh bench`."""
