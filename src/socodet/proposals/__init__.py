"""From an image to object boxes, without labels.

- settings: how boxes are found, and which are kept
- image_boxes: from one image to its boxes, by selective_search or baselines (random, grid), then filters; also
  when an image is sampled, without a table
- table: the proposal table, a Parquet file; its rows, reading, and look-up by image
- make_table: a table of every image of a source, in parallel
- part_files: an unfinished table on disk, so that work can be resumed
- shares: one table made by several processes or machines
- foreign_formats: readers of boxes that other programs made
- conversion: a table of those boxes, matched with the images and filtered
"""
