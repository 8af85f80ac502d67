//! An error in one line.

/// An error and its causes, `what: why: why`, each said once: many errors show their cause in their own text.
pub fn causes(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.contains(&cause) {
            continue;
        }
        if !said.is_empty() {
            said.push_str(": ");
        }
        said.push_str(&cause);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_where_it_has_not_been() {
        let plain = anyhow::anyhow!("no such file").context("cannot read x");
        assert_eq!(causes(&plain), "cannot read x: no such file");
        // Its text has its source, which is another link of the chain.
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.png"), "no image").unwrap();
        let error = data::folder::open(folder.path(), 4).unwrap().load().unwrap_err();
        let error = anyhow::Error::from(error).context("stage");
        assert!(error.chain().count() > 2);
        let said = causes(&error);
        assert!(said.starts_with("stage: ") && said.ends_with("repair or remove the file"), "{said}");
        assert_eq!(said.matches("could not be determined").count(), 1, "{said}");
    }
}
