"""Selective search (Uijlings et al. 2013): boxes of an image's regions, and of everything that they merge into.

`search.selective_search` runs, in this order:

- work_image: the image is shrunk and smoothed
- color_spaces: its channels in each colour space
- segmentation: from channels to regions (Felzenszwalb and Huttenlocher 2004)
- regions: size, box and histograms of each region
- grouping: the most similar neighbours merge, until one region is left

with the colour spaces, scales and similarities of one of `search.STRATEGIES`.
"""
