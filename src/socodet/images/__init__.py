"""Where images come from, and how their bytes become pixels.

- source: `open_images`, from a path to an `ImageSource` (length, keys, bytes), one of
    - folder: files below a folder
    - lists: files that a text file or a COCO file names
    - shards: members of tar files, as shard_index finds them
    - dataset_split: rows of a dataset that Hugging Face's library saved
- suffixes: which files are images, by their suffix
- names: the keys of a million images, in little memory
- decode: from bytes to pixels, or to their size
- value_range: which value is white in 16-bit images that use fewer bits
- pack: any source as small JPEGs in tar shards
- photographs: a dozen images that come with the package
"""
