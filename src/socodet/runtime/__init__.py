"""What every package uses: atomically written files, processes and cores, progress, compiled kernels."""
