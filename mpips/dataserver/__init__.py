"""The data-reading room: text files to training batches, cached in HDF5 and served to workers."""
