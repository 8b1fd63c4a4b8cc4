"""Loads pretrained weights from a run or a file into a network.

hub.py      downloads them from the Hugging Face Hub
file.py     finds and reads them, from any source; read.py gives their tensors plain names
formats.py  the one table of tensor names; renaming.py applies its lines in both directions
recognition.py  detects which of these formats a state dict has
transformers_names.py, transformers_folder.py   names and folders of Hugging Face transformers
match.py    which tensor goes where in a network, and what does not fit
load.py     copies them: `load_pretrained` into detectors, `load_starting_point` into pretraining's networks
report.py   what was loaded, left unchanged, and left over
"""
