"""`socodet reproduce own-data`: the gain from pretraining on a dataset's own images over scratch and other weights."""
