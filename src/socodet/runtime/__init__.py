"""What every room uses: atomically written files, processes and cores, progress, compiled kernels."""
