//! The DiT trunk's forward and backward passes written by hand over preallocated buffers.
