//! A repository in which files can be spoiled.

use std::path::{Path, PathBuf};
use std::{fs, io};

use manifest::{Error, Plan, Request, Workspace};

/// A copy of `tests/fixture`, in which files can be spoiled.
pub(crate) struct Fixture(pub(crate) tempfile::TempDir);

impl Fixture {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture"), folder.path()).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.path().join("experiments").join(file)
    }

    /// Replaces the only occurrence of a text in a file.
    pub(crate) fn spoil(self, file: &str, right: &str, wrong: &str) -> Self {
        let text = fs::read_to_string(self.path(file)).unwrap();
        assert_eq!(text.matches(right).count(), 1, "`{right}` in {file}");
        fs::write(self.path(file), text.replace(right, wrong)).unwrap();
        self
    }

    pub(crate) fn load(&self, scale: &str, overrides: &[&str]) -> Result<Plan, Error> {
        let overrides = overrides.iter().map(|text| text.to_string()).collect();
        let request = Request { scale: scale.into(), overrides, seeds: None };
        let folders = vec![self.0.path().to_owned()];
        Workspace::open(self.0.path()).unwrap().with_data_folders(folders).load("mini", &request)
    }

    pub(crate) fn lines(&self, scale: &str, overrides: &[&str]) -> Vec<String> {
        let error = self.load(scale, overrides).expect_err("a problem");
        error.to_string().lines().map(str::to_owned).collect()
    }

    /// Spoils a file; the problem is expected at the mark `«`, and all lines of the message, where its place is `@`.
    pub(crate) fn expect(file: &str, right: &str, wrong: &str, message: &str) {
        let fixture = Self::new().spoil(file, right, wrong);
        let text = fs::read_to_string(fixture.path(file)).unwrap();
        let before = &text[..text.find('«').expect("a mark")];
        let (line, column) = (before.split('\n').count(), before.chars().rev().take_while(|&c| c != '\n').count() + 1);
        fs::write(fixture.path(file), text.replace('«', "")).unwrap();
        let place = format!("experiments/{file}:{line}:{column}");
        assert_eq!(fixture.lines("s", &[]).join("\n"), message.replace('@', &place), "{wrong}");
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The message about an option.
pub(crate) fn option(text: &str) -> String {
    let lines = Fixture::new().lines("s", &[text]);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.into_iter().next().unwrap()
}
