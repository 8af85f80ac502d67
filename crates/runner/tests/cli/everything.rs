//! `runner reproduce all`: what can be run is, what cannot says why, and a summary links all reports.

use models::weights::{self, Weights};

use crate::repository::Repository;

/// An artifact with one block that the scale can run and one that it cannot, and a cell that says itself that it cannot be run.
const BLOCKS: &str = "\
artifact: blocks
title: two settings
paper: {where: Table 2, backbone: DiT-B/2, dataset: FFHQ 256, further_iterations: 30000}
method: {kind: dmp, preset: paper}
measures: [infinity, precision_recall, similarity]
baseline: {title: Baseline, method: {kind: pretrained}}
groups:
  usual:
    title: The usual setting
    cells:
      soft: {}
      half: {share: 0.5}
      later: {claim: c.later, not_run: nobody has written it}
  other:
    title: Another setting
    setting: absent
    paper: {where: Table 2, backbone: DiT-B/2, dataset: COCO 256, further_iterations: 40000}
    baseline: {method: {kind: pretrained}}
    cells:
      soft: {}
";

const CLAIMS: &str = "claims: [{id: c.later, where: Table 2, metric: fid, value: 7.12, contrasts: {}}]\n";

fn shipped(name: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    std::fs::read_to_string(root.join(name)).unwrap()
}

#[test]
fn everything_is_reproduced_as_far_as_it_goes() {
    let repository = Repository::new();
    repository.write("experiments/blocks.yaml", BLOCKS);
    repository.write("experiments/claims/blocks.yaml", CLAIMS);
    repository.write("experiments/table1.yaml", &shipped("table1.yaml"));
    repository.write("experiments/claims/table1.yaml", &shipped("claims/table1.yaml"));
    let said = repository.exits(0, &["reproduce", "all"]);
    assert!(said.err.contains("usual/later of blocks is not run: nobody has written it"), "{}", said.err);
    assert!(said.err.contains("scale `tiny` has no setting `absent`"), "{}", said.err);
    let read = |name: &str| std::fs::read_to_string(repository.path(name)).unwrap();
    let summary = read("reports/all.md");
    for part in ["[blocks](blocks.md)", "[nano](nano.md)", "[table1](table1.md)", "8 reproduced", "no setting"] {
        assert!(summary.contains(part), "{part}: {summary}");
    }
    let page = read("reports/blocks.md");
    for part in ["## Further measures", "precision", "correlation_mean", "fd_nano_cnn_infinity", "## Not run", "7.12"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(repository.path("reports/blocks/series.svg").is_file());
    assert!(read("reports/table1.md").contains("132.5 M, paper 132.5 M: reproduced"));

    let plan = repository.exits(0, &["plan", "blocks", "--json"]).json();
    assert_eq!((plan["will_run"].as_u64(), plan["will_not_run"].as_u64()), (Some(0), Some(0)));
    let again = repository.exits(0, &["reproduce", "all"]);
    assert!(!again.out.contains("done now"), "{}", again.out);
    // Single cells of it can be asked for; those that cannot be run say so.
    let refused = repository.exits(2, &["run", "blocks", "--cell", "usual/later"]);
    assert!(refused.err.contains("nobody has written it"), "{}", refused.err);
    let refused = repository.exits(2, &["plan", "table1"]);
    assert!(refused.err.contains("`runner report` writes it"), "{}", refused.err);
}

#[test]
fn the_doctor_says_of_what_cannot_be_run_why() {
    let repository = Repository::new();
    let own = "paper: {where: Table 2, backbone: DiT-B/2, dataset: FFHQ 256, further_iterations: 30000}\n";
    let other = BLOCKS.replace("artifact: blocks", "artifact: other").replacen(own, "", 1);
    let (start, usual) = (other.find("baseline: ").unwrap(), other.find("  other:").unwrap());
    repository.write("experiments/other.yaml", &format!("{}groups:\n{}", &other[..start], &other[usual..]));
    let said = repository.exits(0, &["doctor"]);
    let line = |what: &str| said.out.lines().find(|line| line.starts_with(what)).unwrap_or_else(|| panic!("{said:?}"));
    assert!(line("nano at tiny").contains("ok"), "{}", said.out);
    let other = line("other at tiny");
    assert!(other.contains("not run") && other.contains("scale `tiny` has no setting `absent`"), "{other}");
}

/// Three blocks, the middle one trained on photographs.
const SETTINGS: &str = "\
artifact: settings
title: three settings
paper: {where: Table 2, backbone: DiT-B/2, dataset: FFHQ 256, further_iterations: 30000}
method: {kind: dmp, preset: paper}
baseline: {title: Baseline, method: {kind: pretrained}}
groups:
  usual: {title: The usual setting, cells: {soft: {}}}
  photographs:
    title: Photographs
    setting: photographs
    paper: {where: Table 2, backbone: DiT-B/2, dataset: COCO 256, further_iterations: 40000}
    baseline: {method: {kind: pretrained}}
    cells: {soft: {}}
  longer:
    title: Trained longer
    setting: longer
    paper: {where: Table 2, backbone: DiT-B/2, dataset: COCO 256, further_iterations: 40000}
    baseline: {method: {kind: pretrained}}
    cells: {soft: {}}
";

/// A block whose data went away after it was run is said not to run, the blocks behind it stay in their order, and its
/// results are not taken for garbage.
#[test]
fn a_block_without_its_data_is_left_out_and_keeps_its_results() {
    let repository = Repository::new();
    repository.write("experiments/settings.yaml", SETTINGS);
    let scale = std::fs::read_to_string(repository.path("experiments/scales/tiny.yaml")).unwrap();
    let folder = "data: {kind: image_folder, folder: photographs, image_size: 12}";
    let settings = format!("settings:\n  photographs: {{{folder}}}\n  longer: {{train: {{iterations: 5}}}}\n");
    repository.write("experiments/scales/tiny.yaml", &(scale + &settings));
    std::fs::create_dir(repository.path("photographs")).unwrap();
    for i in 0..4 {
        let image = include_bytes!("../../../data/tests/images/palette.png");
        std::fs::write(repository.path(&format!("photographs/{i}.png")), image).unwrap();
    }
    repository.exits(0, &["sweep", "settings"]);
    let left = |code| {
        let listed = repository.exits(code, &["gc", "--json"]);
        (listed.json()["items"].as_array().unwrap().len(), listed.err)
    };
    assert_eq!(left(0).0, 0);

    std::fs::rename(repository.path("photographs"), repository.path("away")).unwrap();
    let plan = repository.exits(0, &["plan", "settings", "--json"]).json();
    assert_eq!((plan["will_run"].as_u64(), plan["will_not_run"].as_u64()), (Some(0), Some(0)), "{plan}");
    repository.exits(0, &["reproduce", "settings"]);
    let page = std::fs::read_to_string(repository.path("reports/settings.md")).unwrap();
    let places = ["### Results", "## Trained longer", "## Not run", "`photographs/soft`"].map(|part| page.find(part));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} in {page}");
    assert!(!page.contains("## Photographs\n"), "{page}");

    let (unasked, said) = left(0);
    assert!(said.contains("data is missing for a part of settings at tiny") && unasked == 0, "{said}");
    repository.exits(0, &["gc", "--delete"]);
    std::fs::rename(repository.path("away"), repository.path("photographs")).unwrap();
    assert_eq!(left(0).0, 0);
    let plan = repository.exits(0, &["plan", "settings", "--json"]).json();
    assert_eq!(plan["will_run"], 0, "nothing was deleted");
}

#[test]
fn weights_of_another_kind_are_refused_before_anything_runs() {
    let repository = Repository::new();
    repository.write("w.pth", "no weights at all, but something long enough to be read");
    let extractor = "extractor={kind: inception, weights: {file: w.pth, sha256: ~}}";
    let said = repository.exits(3, &["reproduce", "nano", "--set", extractor]);
    assert!(
        said.err.contains("w.pth") && said.err.contains("neither safetensors nor a file of PyTorch"),
        "{}",
        said.err
    );
    assert!(!repository.path("results/pretrain").exists(), "nothing has been run");
}

/// `all` means the same to every command: what can be run here.
#[test]
fn all_leaves_out_what_lacks_everything() {
    let repository = Repository::new();
    let scale = std::fs::read_to_string(repository.path("experiments/scales/tiny.yaml")).unwrap();
    let folder = "data: {kind: image_folder, folder: photographs, image_size: 12}";
    repository.write("experiments/scales/tiny.yaml", &(scale + &format!("settings: {{photographs: {{{folder}}}}}\n")));
    let photographs = SETTINGS.split("  photographs:").nth(1).unwrap().split("  longer:").next().unwrap();
    let method = "method: {kind: dmp, preset: paper}";
    repository.write(
        "experiments/away.yaml",
        &format!("artifact: away\ntitle: one setting\n{method}\ngroups:\n  photographs:{photographs}"),
    );
    for arguments in [["plan", "all"], ["sweep", "all"], ["status", "all"], ["report", "all"], ["reproduce", "all"]] {
        let said = repository.exits(0, &arguments);
        assert!(said.err.contains("away is not run: ") && said.err.contains("`photographs` is missing"), "{said:#?}");
    }
    assert!(repository.path("reports/nano.md").is_file());
    std::fs::remove_file(repository.path("experiments/nano.yaml")).unwrap();
    for command in ["plan", "sweep", "status", "report", "reproduce"] {
        let said = repository.exits(3, &[command, "all"]);
        assert!(said.err.contains("`photographs` is missing"), "{said:#?}");
    }
}

#[test]
fn a_backbone_of_another_network_or_with_damaged_numbers_is_not_measured() {
    let repository = Repository::new();
    repository.exits(0, &["run", "experiments/nano-backbone.yaml"]);
    let sound = weights::read(&repository.file("pretrain", "weights.safetensors").unwrap()).unwrap();
    let file = repository.path("w.safetensors");
    let backbone = "backbone={recipe: nano-backbone, weights: {file: w.safetensors, sha256: ~}}";
    let refused = |code: i32, spoil: &dyn Fn(&mut Weights)| {
        let mut spoilt = sound.clone();
        spoil(&mut spoilt);
        weights::write(&file, &spoilt).unwrap();
        let said = repository.exits(code, &["run", "nano", "--cell", "baseline", "--set", backbone]);
        assert!(said.err.contains("w.safetensors"), "{}", said.err);
        said.err
    };
    let layer = "blocks.1.mlp.fc1.weight";

    let said = refused(3, &|weights| {
        weights.get_mut(layer).unwrap().shape.reverse();
        weights.remove("final_layer.linear.bias");
    });
    let faults = "does not fit the model: blocks.1.mlp.fc1.weight has shape [16, 64], expected [64, 16]; missing final_layer.linear.bias [54]";
    assert!(said.contains(faults), "{said}");
    assert!(!repository.path("results/features").exists(), "nothing has been run");

    let said = refused(1, &|weights| weights.get_mut(layer).unwrap().values[3] = f32::NAN);
    assert!(said.contains("blocks.1.mlp.fc1.weight: 1 of 1024 values are not finite"), "{said}");

    let said = refused(1, &|weights| weights.get_mut(layer).unwrap().values.fill(1e38));
    assert!(said.contains("sample 0 is not finite"), "{said}");
    assert!(repository.records("results", "sample").is_empty() && repository.records("results", "metrics").is_empty());
    repository.exits(0, &["verify"]);
}
