"""What is written: tensors, files of each quantisation, and whether they load and compute."""
