//! An error in one line.

/// An error and its causes, `what: why: why`, each said once: many errors show their cause in their own text.
pub fn causes(error: &anyhow::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.iter().any(|what| says(what, &cause)) {
            continue;
        }
        match said.last_mut() {
            Some(last) if says(&cause, last) => *last = cause,
            _ => said.push(cause),
        }
    }
    said.join(": ")
}

/// Whether a text has another in it, as words of its own.
fn says(text: &str, part: &str) -> bool {
    let apart = |c: Option<char>| !c.is_some_and(char::is_alphanumeric);
    text.match_indices(part)
        .any(|(start, _)| apart(text[..start].chars().next_back()) && apart(text[start + part.len()..].chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_where_it_has_not_been() {
        let plain = anyhow::anyhow!("no such file").context("cannot read x");
        assert_eq!(causes(&plain), "cannot read x: no such file");
        assert_eq!(causes(&anyhow::anyhow!("2").context("line 12")), "line 12: 2");
        assert_eq!(
            causes(&anyhow::anyhow!("cannot read x: no disk").context("cannot read x")),
            "cannot read x: no disk"
        );
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
