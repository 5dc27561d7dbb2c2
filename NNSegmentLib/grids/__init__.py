"""Whether grids are one and the same, and voxels brought from one onto another."""
