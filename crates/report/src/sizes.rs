//! The report on a table of sizes (Table 1): exact counts, the paper's own account of them, and whether it gives its digits.

use std::fs;
use std::path::{Path, PathBuf};

use manifest::claim::Claim;
use manifest::count::Count;
use polars::prelude::*;
use serde::Serialize;

use crate::error::Error;
use crate::frames::csv;
use crate::markdown::{Align, escape, table};

/// A counted network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Size {
    /// Parameters of the network.
    pub base: usize,
    /// Parameters of prompts and gate.
    pub patch: usize,
    /// Parameters of the gate's learned noise.
    pub noise: usize,
    /// Operations of a forward pass of one image, and what the patch adds.
    pub flops: (f64, f64),
    /// Bytes of activations that a step with frozen weights keeps of one image, and what the patch adds.
    pub kept: (usize, usize),
}

/// A written report on sizes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SizesReport {
    /// Its files, the page first.
    pub files: Vec<PathBuf>,
    /// Every claim: its id, the paper's digits, ours, whether they are the same.
    pub claims: Vec<(String, String, String, bool)>,
}

/// Digits of a claim and of what we count, truncated alike.
struct Digits {
    id: String,
    paper: String,
    ours: String,
}

impl Digits {
    /// With as many decimals as the paper prints.
    fn of(claim: &Claim, counted: f64) -> Option<Self> {
        let value = claim.value?;
        let decimals = (0..6).find(|d| (value * 10f64.powi(*d)).fract() == 0.0).unwrap_or(2) as usize;
        let scale = 10f64.powi(decimals as i32);
        let ours = format!("{:.decimals$}", (counted * scale).floor() / scale);
        Some(Self { id: claim.id.clone(), paper: format!("{value:.decimals$}"), ours })
    }

    /// Rounded to whole millions, as the published sizes are.
    fn rounded(claim: &Claim, parameters: usize) -> Option<Self> {
        let ours = format!("{:.0}", parameters as f64 / 1e6);
        Some(Self { id: claim.id.clone(), paper: format!("{:.0}", claim.value?), ours })
    }

    fn agree(&self) -> bool {
        self.paper == self.ours
    }

    fn shown(&self, sign: &str, unit: &str) -> String {
        let verdict = if self.agree() { "reproduced" } else { "**contradicted**" };
        format!("{sign}{}{unit}, paper {sign}{}{unit}: {verdict}", self.ours, self.paper)
    }
}

/// Writes `<count>.md` and `<count>.csv` in `reports`.
///
/// # Errors
/// A file cannot be written.
pub fn write(count: &Count, claims: &[Claim], sizes: &[Size], reports: &Path) -> Result<SizesReport, Error> {
    let claim = |id: &Option<String>| id.as_ref().and_then(|id| claims.iter().find(|claim| claim.id == *id));
    let mut digits = Vec::new();
    let (mut exact, mut account, mut cost) = (Vec::new(), Vec::new(), Vec::new());
    for (network, size) in count.networks.values().zip(sizes) {
        let name = escape(&network.name);
        let patch = size.patch as f64 / 1e6;
        let base = claim(&network.base).and_then(|claim| Digits::rounded(claim, size.base));
        let whole = claim(&network.whole).and_then(|claim| Digits::of(claim, network.rounded + patch));
        let share = claim(&network.share).and_then(|claim| Digits::of(claim, 100.0 * patch / network.rounded));
        exact.push(vec![
            name.clone(),
            grouped(size.base),
            grouped(size.patch),
            grouped(size.base + size.patch),
            percent(size.patch as f64 / size.base as f64),
            grouped(size.noise),
            grouped(size.base + size.patch + size.noise),
        ]);
        account.push(vec![
            name.clone(),
            base.as_ref().map_or(format!("{}", network.rounded), |digits| digits.shown("", "")),
            whole.as_ref().map_or(String::new(), |digits| digits.shown("", " M")),
            share.as_ref().map_or(String::new(), |digits| digits.shown("+", "%")),
        ]);
        let of = |(base, added): (f64, f64), unit: f64| {
            [format!("{:.2}", base / unit), format!("{:.5}", added / unit), percent(added / base)]
        };
        let kept = (size.kept.0 as f64, size.kept.1 as f64);
        cost.push([vec![name], of(size.flops, 1e9).to_vec(), of(kept, 1048576.0).to_vec()].concat());
        digits.extend(base.into_iter().chain(whole).chain(share));
    }
    let right = Align::Right;
    let exact_columns = [
        ("Network", Align::Left),
        ("Parameters", right),
        ("DMP adds", right),
        ("With DMP", right),
        ("Share", right),
        ("Learned noise adds", right),
        ("With both", right),
    ];
    let account_columns = [
        ("Network", Align::Left),
        ("Base, rounded (M)", Align::Left),
        ("With DMP", Align::Left),
        ("Added", Align::Left),
    ];
    let cost_columns = [
        ("Network", Align::Left),
        ("GFLOP an image", right),
        ("DMP adds (GFLOP)", right),
        ("Share", right),
        ("MiB kept an image", right),
        ("DMP adds (MiB)", right),
        ("Share of that", right),
    ];
    let text = format!(
        "# {}\n\nTable 1 and Appendix H of the paper at 256x256, counted from the definitions that run here; nothing is trained and no \
         weight is read.\n\n## Exactly\n\nThe released code also learns the noise on the gate's logits, which the paper's counts leave \
         out. The position embedding, which is fixed, is counted with the network.\n\n{}\n## As the paper counts\n\nEach of its digits follows from one \
         account: the published size of the network, rounded, and the patch without noise, truncated. Truncation is what \
         distinguishes it: rounded, 132.556 would be 132.6. The published size of DiT-L/2 is that with ImageNet's classes, which \
         the paper's has not; what Stable Diffusion's counts besides the UNet is not said.\n\n{}\n## Operations and memory\n\nOne image, a multiplication and an addition \
         being two operations: the matrix products of a forward pass, and the activations in 32 bits that a step with frozen \
         weights keeps for its backward pass. DMP adds the gate once per block, the weights times the prompts, and the gate's weights \
         to what is kept. Of the UNet, on a caption of 77 tokens, what is kept is what the way back needs: the inputs of all that is not \
         linear. The paper says that both hardly change.\n\n{}",
        escape(&count.title),
        table(&exact_columns, &exact),
        table(&account_columns, &account),
        table(&cost_columns, &cost),
    );
    let names: Vec<&str> = count.networks.values().map(|network| network.name.as_str()).collect();
    let number = |of: fn(&Size) -> f64| sizes.iter().map(of).collect::<Vec<f64>>();
    let exactly = |of: fn(&Size) -> usize| sizes.iter().map(|size| of(size) as u64).collect::<Vec<_>>();
    let frame = df!(
        "network" => names,
        "parameters" => exactly(|size| size.base),
        "patch" => exactly(|size| size.patch),
        "noise" => exactly(|size| size.noise),
        "flops" => number(|size| size.flops.0),
        "patch_flops" => number(|size| size.flops.1),
        "kept_bytes" => number(|size| size.kept.0 as f64),
        "patch_kept_bytes" => number(|size| size.kept.1 as f64),
    )?;
    let files = [
        (reports.join(format!("{}.md", count.count)), text.into_bytes()),
        (reports.join(format!("{}.csv", count.count)), csv(&frame)?),
    ];
    fs::create_dir_all(reports).map_err(|source| Error::Folder { path: reports.to_owned(), source })?;
    for (path, contents) in &files {
        if fs::read(path).ok().as_ref() != Some(contents) {
            store::atomic::write(path, contents)?;
        }
    }
    let claims = digits.into_iter().map(|d| (d.id.clone(), d.paper.clone(), d.ours.clone(), d.agree())).collect();
    Ok(SizesReport { files: files.map(|(path, _)| path).to_vec(), claims })
}

/// A count with its digits in threes: `129,744,416`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let threes: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|three| std::str::from_utf8(three).expect("digits")).collect();
    threes.join(",")
}

fn percent(share: f64) -> String {
    format!("{:.3}%", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use manifest::claim::Metric;

    use super::*;

    #[test]
    fn digits_are_truncated_as_the_paper_prints_them() {
        let claim = |value: f64| Claim {
            id: "c".into(),
            place: String::new(),
            metric: Metric::Parameters,
            value: Some(value),
            contrasts: Default::default(),
            diverges: false,
        };
        let agree = |printed: f64, counted: f64| Digits::of(&claim(printed), counted).unwrap().agree();
        assert!(agree(132.5, 132.556) && !agree(132.6, 132.556));
        assert!(agree(892.0, 892.889) && agree(1.96, 1.9665) && !agree(1.96, 1.95));
        assert_eq!([0, 123, 1234, 859_520_964].map(grouped), ["0", "123", "1,234", "859,520,964"]);
    }
}
