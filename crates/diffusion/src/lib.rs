//! Noise schedules, losses and samplers over any denoiser, in f64 tables.
