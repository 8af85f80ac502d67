//! Denoisers and feature extractors in candle, and the weight files they are read from.
