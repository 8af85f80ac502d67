#![allow(dead_code, unused_imports)]
mod fixture;
use store::Outcome;
#[test]
fn look() {
    let bench = fixture::full(&[0, 1, 2]);
    for cell in ["baseline", "reference/prompt_tuning", "a/linear"] { bench.sample(cell, 0, 24); }
    bench.activation("a/linear", 0, 4, 64);
    let bump = |i: f64| 0.07 + 0.01 * (i * 1.7).sin() * (i * 0.31).cos();
    for (cell, k) in [("a/linear", 1.0), ("a/attention", 0.2), ("b/hard", 1.5), ("c/uniform", 0.9), ("e/ib0_lb0", 1.2), ("e/ib2_lb1", 0.8), ("depth/first", 0.3), ("depth/half", 0.6), ("reference/prompt_tuning", 1.8)] {
        bench.train(cell, 0, 300, Outcome::Completed, |i| bump(i) - k * i * 1e-6);
    }
    let t = std::time::Instant::now();
    let r = report::build(&bench.plan, &bench.store, std::path::Path::new("/tmp/look")).unwrap();
    let t1 = t.elapsed();
    let t = std::time::Instant::now();
    report::build(&bench.plan, &bench.store, std::path::Path::new("/tmp/look")).unwrap();
    println!("{t1:?} then {:?} {:?}", t.elapsed(), r.files);
}
