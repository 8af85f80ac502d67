//! From features to numbers: Frechet distance and the statistics of paired differences.
