//! Datasets, image decoding and batches.
