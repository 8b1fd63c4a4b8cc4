"""Many runs as one experiment: comparisons, ablations, reproductions."""
