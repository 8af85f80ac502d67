//! What ARCHITECTURE.md says of the crates is so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn document(name: &str) -> String {
    std::fs::read_to_string(repository().join(name)).unwrap()
}

#[test]
fn the_architecture_names_every_crate_and_no_other() {
    let text = document("ARCHITECTURE.md");
    let row = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    let named: BTreeSet<String> = text.lines().filter_map(row).collect();
    let folders = std::fs::read_dir(repository().join("crates")).unwrap();
    let there: BTreeSet<String> = folders.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(named, there);
}

/// Every package of Cargo.lock with the names of those it needs itself, tests included.
fn locked() -> BTreeMap<String, Vec<String>> {
    let lock = document("Cargo.lock");
    let quoted = |line: &str| Some(line.split('"').nth(1)?.split(' ').next()?.to_owned());
    let mut packages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let name = package.lines().find(|line| line.starts_with("name = ")).and_then(quoted).unwrap();
        let needs = package.lines().skip_while(|line| !line.starts_with("dependencies = [")).skip(1);
        // Two versions of a package are taken for one: more is reached, never less.
        packages.entry(name).or_default().extend(needs.take_while(|line| *line != "]").filter_map(quoted));
    }
    packages
}

/// The column `never` of ARCHITECTURE.md, where it names packages.
#[test]
fn no_crate_reaches_what_the_architecture_forbids_it() {
    let packages = locked();
    let known = |word: &str| packages.keys().any(|name| name == word || *name == format!("{word}-core"));
    let mut held = 0;
    for line in document("ARCHITECTURE.md").lines().filter(|line| line.starts_with("| `")) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let (own, never) = (columns[1].trim_matches('`'), columns[3]);
        let (mut reached, mut open) = (BTreeSet::new(), vec![own]);
        while let Some(next) = open.pop() {
            open.extend(packages[next].iter().map(String::as_str).filter(|name| reached.insert(*name)));
        }
        for word in never.split(", ").filter(|word| known(word)) {
            let found = reached.iter().find(|name| name.split('-').next() == Some(word));
            assert_eq!(found, None, "`{own}` reaches what it never should");
            held += 1;
        }
    }
    assert!(held >= 6, "candle four times, polars, models: {held}");
}
