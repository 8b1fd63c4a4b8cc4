"""What every room stands on: files written whole, processes and cores, progress, compiled kernels."""
