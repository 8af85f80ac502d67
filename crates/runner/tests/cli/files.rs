//! `runner data` and `runner weights`: what is published, from a server on this machine; folders; conversions.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use manifest::digest::Digest;
use models::architecture::Architecture;
use models::weights::{self, Tensor, Weights};

use crate::repository::Repository;

const IMAGES: &[u8] = b"the images, of which there are many";
const LABELS: &[u8] = b"the labels";

/// A server of files by path. It ends every first connection for a file in the middle.
fn serve(files: BTreeMap<&'static str, Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut seen = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let header: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let path = header[0].split(' ').nth(1).unwrap().to_owned();
            let range =
                header.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
            let start: usize = range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
            let Some(file) = files.get(path.as_str()) else {
                let _ = write!(stream, "HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                continue;
            };
            let (status, total) = (if start > 0 { "206 Partial" } else { "200 OK" }, file.len());
            let body = &file[start..];
            let sent = if seen.contains(&path) { body } else { &body[..body.len() / 2] };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Range: bytes {start}-{}/{total}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                total - 1,
                body.len()
            );
            let _ = stream.write_all(sent);
            seen.push(path);
        }
    });
    address
}

/// A repository that knows a dataset of two files and weights without a hash, on a server of its own.
fn repository() -> Repository {
    let address = serve(BTreeMap::from([("/images.gz", IMAGES.to_vec()), ("/labels.gz", LABELS.to_vec())]));
    let file = |name: &str, bytes: &[u8]| {
        let (count, sha256) = (bytes.len(), Digest::of(bytes));
        format!(
            "      - {{file: set/{name}, url: '{address}/{name}', content: {{bytes: {count}, sha256: {sha256}}}}}\n"
        )
    };
    let repository = Repository::new();
    let text = format!(
        "data:\n  set:\n    title: a set\n    licence: MIT\n    files:\n{}{}  gone:\n    title: gone\n    licence: MIT\n    \
         files:\n{}weights:\n  net:\n    title: a net\n    licence: MIT\n    files:\n      - {{file: w/net.pt, url: \
         '{address}/net.pt', content: null}}\n",
        file("images.gz", IMAGES),
        file("labels.gz", LABELS),
        file("gone.gz", b"gone"),
    );
    repository.write("experiments/published.yaml", &text);
    repository
}

#[test]
fn published_data_is_listed_fetched_once_and_checked() {
    let repository = repository();
    let listed = repository.exits(0, &["data", "list", "--json"]).json_lines();
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|row| row["state"] == "missing"), "{listed:?}");
    repository.exits(3, &["data", "check", "set"]);

    let said = repository.exits(0, &["data", "fetch", "set"]);
    assert!(said.out.contains("set/images.gz: fetched"), "{}", said.out);
    assert_eq!(std::fs::read(repository.path("set/images.gz")).unwrap(), IMAGES);
    assert_eq!(std::fs::read(repository.path("set/labels.gz")).unwrap(), LABELS);
    assert_eq!(std::fs::read_dir(repository.path("set")).unwrap().count(), 2, "nothing unfinished is left");
    assert!(repository.exits(0, &["data", "check", "set"]).out.contains("sound"));
    assert!(repository.exits(0, &["data", "fetch", "set"]).out.contains("already there"));

    // Other bytes of the same length are noticed by `check`, and not replaced by `fetch`.
    repository.write("set/labels.gz", "THE labels");
    assert!(repository.exits(1, &["data", "check", "set"]).out.contains("DAMAGED"));
    let said = repository.exits(1, &["data", "fetch", "set"]);
    assert!(said.err.contains("labels.gz") && said.err.contains("move it away"), "{}", said.err);
}

#[test]
fn what_cannot_be_fetched_says_why_and_what_next() {
    let repository = repository();
    let said = repository.exits(3, &["data", "fetch", "gone"]);
    assert!(said.err.contains("gone.gz: the server answers 404"), "{}", said.err);
    assert!(!repository.path("set/gone.gz").exists());
    let said = repository.exits(2, &["data", "fetch", "sett"]);
    assert!(said.err.contains("did you mean `set`?") && said.err.contains("runner data list"), "{}", said.err);
    let said = repository.exits(3, &["weights", "fetch", "net"]);
    assert!(said.err.contains("not pinned") && said.err.contains("/net.pt to "), "{}", said.err);
    // What no hash tells is not called sound.
    repository.write("w/net.pt", "any bytes");
    assert!(repository.exits(1, &["weights", "check", "net"]).out.contains("no hash is pinned"));
    let said = repository.exits(3, &["data", "check", "nowhere"]);
    assert!(!said.err.contains("did you mean"), "{}", said.err);
    let said = repository.exits(3, &["data", "check", "sett"]);
    assert!(said.err.contains("published.yaml; did you mean `set`?\n  `runner data list`"), "{}", said.err);
    repository.write("experiments/published.yaml", "data: {}\nweight: {}\n");
    let said = repository.exits(2, &["data", "list"]);
    assert!(said.err.contains("published.yaml:2:1: unknown key `weight`"), "{}", said.err);
}

#[test]
fn a_folder_of_images_is_looked_through_and_what_is_broken_is_named() {
    let repository = Repository::new();
    let faces = data::faces::faces(16, 0, 4);
    for (i, class) in ["b", "b", "a", "c"].iter().enumerate() {
        repository.write(&format!("photographs/{class}/notes.txt"), "stray");
        let path = repository.path(&format!("photographs/{class}/{i}.png"));
        data::grid_png(&faces.slice(i..i + 1), 1, 1, &path).unwrap();
    }
    repository.write("photographs/.DS_Store", "stray");
    let found = repository.exits(0, &["data", "check", "photographs", "--as", "class_folders", "--json"]).json();
    assert_eq!((&found["images"], &found["classes"], &found["ignored"]), (&4.into(), &3.into(), &3.into()));
    let json =
        r#"{"images": [{"id": 1, "file_name": "a/2.png"}], "annotations": [{"id": 1, "image_id": 1, "caption": "x"}]}"#;
    repository.write("captions.json", json);
    let said = repository.exits(0, &["data", "check", "photographs", "--captions", "captions.json"]);
    assert!(said.out.contains("1 image, 1 caption"), "{}", said.out);
    repository.write("photographs/c/broken.jpg", "no image");
    let said = repository.exits(1, &["data", "check", "photographs"]);
    assert!(said.out.contains("c/broken.jpg") && said.out.contains("5 images, 3 other files"), "{}", said.out);
    let said = repository.exits(1, &["data", "check", "photographs", "--as", "web_dataset"]);
    assert!(said.err.contains("no shard"), "{}", said.err);
}

#[test]
fn weights_are_listed_converted_and_held_against_a_network() {
    let repository = Repository::new();
    let tensor = |values: &[f32]| Tensor { shape: vec![values.len()], values: values.to_vec() };
    let weights = Weights::from([
        ("final_layer.linear.bias".to_owned(), tensor(&[1.0, -2.5])),
        ("other".to_owned(), tensor(&[0.1; 3])),
    ]);
    weights::write(&repository.path("a.safetensors"), &weights).unwrap();
    let listed = repository.exits(0, &["weights", "list", "a.safetensors"]);
    assert!(listed.out.contains("safetensors, 2 tensors, 5 numbers"), "{}", listed.out);

    repository.exits(0, &["weights", "convert", "a.safetensors", "b.pt", "--into-part", "ema"]);
    let listed = repository.exits(0, &["weights", "list", "b.pt", "--json"]).json_lines();
    assert_eq!((&listed[1]["name"], &listed[1]["shape"]), (&"other".into(), &serde_json::json!([3])));
    repository.exits(0, &["weights", "convert", "b.pt", "c.safetensors", "--part", "ema"]);
    let bytes = |name| std::fs::read(repository.path(name)).unwrap();
    assert_eq!(bytes("c.safetensors"), bytes("a.safetensors"));

    let said = repository.exits(1, &["weights", "check", "b.pt", "--as", "dit-b2"]);
    for fault in
        ["missing pos_embed [1, 256, 768]", "unexpected other", "final_layer.linear.bias has shape [2], expected [32]"]
    {
        assert!(said.out.contains(fault), "{fault}: {}", said.out);
    }
    assert!(said.out.contains("does NOT fit dit-b2"), "{}", said.out);
    let found = repository.exits(1, &["weights", "check", "b.pt", "--as", "dit-b2", "--json"]).json();
    assert_eq!((&found["fits"], &found["numbers"]), (&false.into(), &129_744_416.into()));

    repository.exits(1, &["weights", "convert", "b.pt", "d.pt", "--as", "dit-b2"]);
    for (code, arguments) in [
        (2, &["weights", "convert", "a.safetensors", "b.pt"][..]),
        (2, &["weights", "convert", "a.safetensors", "b.zip"]),
        (2, &["weights", "convert", "a.safetensors", "d.safetensors", "--into-part", "ema"]),
        (2, &["weights", "list", "b.pt", "--part", "model"]),
        (2, &["weights", "check", "b.pt"]),
        (3, &["weights", "list", "missing.pt"]),
        (1, &["weights", "list", "experiments/nano.yaml"]),
    ] {
        let said = repository.exits(code, arguments);
        assert!(said.err.starts_with("error: "), "{arguments:?}: {}", said.err);
    }
    assert!(!repository.path("d.pt").exists() && !repository.path("d.safetensors").exists());
}

#[test]
fn weights_that_fit_are_read_to_the_last_number() {
    let repository = Repository::new();
    let zeros = |(name, shape): (String, Vec<usize>)| {
        let values = vec![0.0; shape.iter().product()];
        (name, Tensor { shape, values })
    };
    let mut weights: Weights = Architecture::Inception.shapes().unwrap().into_iter().map(zeros).collect();
    let check = ["weights", "check", "net.safetensors", "--as", "inception"];
    weights::write(&repository.path("net.safetensors"), &weights).unwrap();
    let said = repository.exits(0, &check);
    assert!(said.out.contains("numbers, all finite"), "{}", said.out);
    let spoiled = weights.get_mut("fc.bias").unwrap();
    (spoiled.values[3], spoiled.values[5]) = (f32::NAN, f32::NEG_INFINITY);
    weights::write(&repository.path("net.safetensors"), &weights).unwrap();
    let said = repository.exits(1, &check);
    assert!(said.out.starts_with("fc.bias: 2 of 1008 values are not finite\n"), "{}", said.out);
    let found = repository.exits(1, &[&check[..], &["--json"]].concat()).json();
    assert_eq!(found["faults"], serde_json::json!(["fc.bias: 2 of 1008 values are not finite"]));
}
