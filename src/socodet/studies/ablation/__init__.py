"""The paper's ablation tables at any budget: one run per row, all on the same images and proposals."""
