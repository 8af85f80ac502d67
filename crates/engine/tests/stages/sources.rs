//! Datasets on disk, as far as the training that sees them: labels condition, captions join, what does not fit is said.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use engine::{Device, EngineError, Job, Outcome};
use manifest::dataset::Source;
use manifest::denoiser::Denoiser;
use manifest::stage::Stage;

use crate::run;

/// Two images in each of three folders, which are classes, and their captions as COCO writes them.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let faces = data::faces::faces(16, 0, 6);
    let (mut images, mut captions) = (Vec::new(), Vec::new());
    for i in 0..faces.len() {
        let name = format!("c{}/{i}.png", i / 2);
        let path = folder.path().join("photographs").join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        data::grid_png(&faces.slice(i..i + 1), 1, 1, &path).unwrap();
        images.push(format!(r#"{{"id": {i}, "file_name": "{name}"}}"#));
        captions.push(format!(r#"{{"id": {i}, "image_id": {i}, "caption": "face {i}"}}"#));
    }
    let json = format!(r#"{{"images": [{}], "annotations": [{}]}}"#, images.join(","), captions.join(","));
    fs::write(folder.path().join("captions.json"), json).unwrap();
    fs::write(folder.path().join("photographs/.DS_Store"), "stray").unwrap();
    folder
}

/// Two iterations of the shipped backbone's training on `source`, and the weights it ends with.
fn pretrain(source: Source, inputs: &[(&str, &Path)], classes: Option<usize>) -> Result<Vec<u8>, EngineError> {
    let mut stage = run::recipe(
        "tiny-backbone",
        &["optimisation.iterations=2", "optimisation.warmup_iterations=1", "optimisation.batch=4"],
    )
    .remove(0)
    .stage;
    let Stage::Pretrain(pretrain) = &mut stage else { panic!("the recipe of a backbone") };
    pretrain.data = source;
    let Denoiser::Dit(dit) = &mut pretrain.denoiser else { panic!("a UNet") };
    dit.classes = classes;
    let inputs = inputs.iter().map(|(role, path)| ((*role).to_owned(), path.to_path_buf())).collect::<BTreeMap<_, _>>();
    let directory = tempfile::tempdir().unwrap();
    let (stop, progress) = (AtomicBool::new(false), |_| {});
    let job = Job {
        stage: &stage,
        inputs,
        directory: directory.path(),
        threads: 1,
        device: Device::Cpu,
        progress: &progress,
        stop: &stop,
    };
    let finished = engine::execute(&job)?;
    assert_eq!(finished.outcome, Outcome::Completed);
    Ok(fs::read(directory.path().join(engine::artifact::WEIGHTS)).unwrap())
}

#[test]
fn labels_of_class_folders_condition_the_training() {
    let folder = folder();
    let photographs = folder.path().join("photographs");
    let inputs = [("folder", photographs.as_path())];
    let classes = |classes| pretrain(Source::ClassFolders { image_size: 24, count: None }, &inputs, classes);
    let conditional = classes(Some(3)).unwrap();
    assert_eq!(conditional, classes(Some(3)).unwrap());
    assert_ne!(conditional, pretrain(Source::ImageFolder { image_size: 24, count: None }, &inputs, Some(3)).unwrap());
    let message = classes(Some(2)).unwrap_err().to_string();
    assert!(message.contains("image 4 has label 2") && message.contains("2 classes"), "{message}");
}

#[test]
fn captioned_images_are_the_images_of_their_folder() {
    let folder = folder();
    let (photographs, captions) = (folder.path().join("photographs"), folder.path().join("captions.json"));
    let inputs = [("folder", photographs.as_path()), ("captions", captions.as_path())];
    let plain = pretrain(Source::ImageFolder { image_size: 24, count: None }, &inputs, None).unwrap();
    assert_eq!(pretrain(Source::Captions { image_size: 24 }, &inputs, None).unwrap(), plain);
    fs::remove_file(photographs.join("c1/3.png")).unwrap();
    let message = pretrain(Source::Captions { image_size: 24 }, &inputs, None).unwrap_err().to_string();
    assert!(message.contains("lacks 1 of the 6 images") && message.contains("c1/3.png"), "{message}");
    let message = pretrain(Source::WebDataset { image_size: 24 }, &[("shards", &photographs)], None).unwrap_err();
    assert!(message.to_string().contains("no shard"), "{message}");
}
