//! One stage of an experiment: pretrain, train, sample, features, metrics.
