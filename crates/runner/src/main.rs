//! The command line: plan, run, sweep, reproduce, report.
fn main() {}
