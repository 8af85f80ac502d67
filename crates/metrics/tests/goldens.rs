//! The Frechet distance against the authors' metric (goldens, group e); precision, recall and Inception score (group f).

use goldens::{Golden, distance};
use metrics::{Coverage, Gaussian, Manifold, Reference, inception_score};

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

/// Improved precision and recall (goldens, group f): exact booleans, radii in `f64`.
#[test]
fn goldens_precision_recall() {
    let golden = Golden::open("eval_metrics");
    let names = golden.names();
    let cases: Vec<&str> =
        names.iter().filter_map(|name| name.strip_prefix("pr.")?.strip_suffix(".precision")).collect();
    assert!(!cases.is_empty());
    const NEIGHBOURS: usize = 3;
    for case in cases {
        let get = |what: &str| golden.get(&format!("pr.{case}.{what}"));
        let (real, made) = (get("ref"), get("gen"));
        let (real_values, made_values, d) = (real.f32(), made.f32(), real.shape[1]);
        let reference = Manifold::new(&real_values, d, NEIGHBOURS).unwrap();
        let generated = Manifold::new(&made_values, d, NEIGHBOURS).unwrap();
        for (manifold, radii) in [(&reference, "radii2_ref"), (&generated, "radii2_gen")] {
            let apart = distance(manifold.squared_radii(), &get(radii).values);
            assert!(apart < 1e-12, "{case}: {radii}");
            margin(&format!("{case} {radii}"), apart, 1e-12);
        }
        let coverage = Coverage::of(&reference, &generated).unwrap();
        let inside = |what: &str| get(what).usize().into_iter().map(|inside| inside == 1).collect::<Vec<bool>>();
        assert_eq!(coverage.generated, inside("gen_inside"), "{case}");
        assert_eq!(coverage.reference, inside("ref_inside"), "{case}");
        assert_eq!((coverage.precision(), coverage.recall()), (get("precision").scalar(), get("recall").scalar()));
    }
}

/// The Inception score (goldens, group f).
#[test]
fn goldens_inception_score() {
    let golden = Golden::open("eval_metrics");
    let probabilities = golden.get("is.probabilities");
    let splits = golden.group("is.split");
    assert!(!splits.is_empty());
    for (split, theirs) in splits {
        let ours = inception_score(&probabilities.f32(), probabilities.shape[1], split.parse().unwrap()).unwrap();
        let apart = distance(&[ours], &theirs.values);
        assert!(apart <= 1e-6, "split {split}: {ours} against {}", theirs.scalar());
        margin(&format!("split {split}"), apart, 1e-6);
    }
}
