//! The Frechet distance against the authors' metric (goldens, group e).

use goldens::{Golden, distance};
use metrics::{Gaussian, Reference};

/// Both distributions of a case, from features where the file holds them.
fn pair(golden: &Golden, case: &str) -> [Gaussian; 2] {
    ["1", "2"].map(|side| match golden.find(&format!("{case}.features{side}")) {
        Some(features) => Gaussian::from_features(&features.f32(), features.shape[1]).unwrap(),
        None => {
            let stored = |what: &str| golden.get(&format!("{case}.{what}{side}")).values;
            Gaussian::from_moments(stored("mu"), &stored("sigma")).unwrap()
        }
    })
}

#[test]
fn goldens_frechet() {
    let golden = Golden::open("fid_frechet");
    let names = golden.names();
    let cases: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".fid_exact")).collect();
    assert!(!cases.is_empty());
    for case in cases {
        let [a, b] = pair(&golden, case);
        for (side, ours) in [("1", &a), ("2", &b)] {
            let mean = golden.get(&format!("{case}.mu{side}"));
            assert!(distance(ours.mean(), &mean.values) < 1e-12, "{case}: mean {side}");
            if let Some(sigma) = golden.find(&format!("{case}.sigma{side}")) {
                assert!(distance(&ours.covariance(), &sigma.values) < 1e-12, "{case}: covariance {side}");
            }
        }
        let allowed = 1e-6 * (a.total_variance() + b.total_variance()).max(1.0);
        let stored = |a: &Gaussian| Gaussian::from_moments(a.mean().to_vec(), &a.covariance()).unwrap();
        for (form, a, b) in [("features", &a, &b), ("swapped", &b, &a), ("moments", &stored(&a), &stored(&b))] {
            let ours = Reference::new(a.clone()).unwrap().distance(b).unwrap();
            for what in ["fid_exact", "fid_50digits"] {
                let Some(theirs) = golden.find(&format!("{case}.{what}")) else { continue };
                let apart = (ours - theirs.scalar()).abs();
                assert!(apart <= allowed, "{case} ({form}): {ours} against {what} {}", theirs.scalar());
                margin(&format!("{case} ({form}) {what}"), apart, allowed);
            }
        }
    }
}

#[allow(clippy::print_stdout, reason = "margins are read with --nocapture")]
fn margin(what: &str, apart: f64, allowed: f64) {
    println!("{what}: {apart:.1e} of {allowed:.1e}");
}
