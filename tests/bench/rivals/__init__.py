"""What people would use instead of the mesh, each written as its own documentation shows. See `measure`."""
