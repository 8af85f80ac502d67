//! The results tree: keys, locks, atomic records, integrity, and frames over them.
