//! The tables of one manifest: the groups in the scale's usual setting together, and each group in a setting of its own.

use crate::claim::Claim;
use crate::files::Loaded;
use crate::manifest::{Cell, Group, Manifest, Paper};
use crate::plan::NotRun;
use crate::problem::{Problems, allowed};
use crate::validate;

/// Which groups of a manifest stand in one table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Block<'m> {
    /// Those without a setting of their own.
    Usual,
    /// This one alone, in this setting.
    Own { group: &'m str, setting: &'m str },
}

/// A cell where it stands.
pub(crate) struct Member<'m> {
    /// `group/label`, or `baseline`.
    pub(crate) id: String,
    /// Its path in the manifest.
    pub(crate) path: String,
    /// Its group; `None` for a baseline.
    pub(crate) group: Option<&'m str>,
    label: &'m str,
    pub(crate) cell: &'m Cell,
}

/// The blocks of a manifest, in its order: the usual one first, where it has groups.
pub(crate) fn blocks(manifest: &Manifest) -> Vec<Block<'_>> {
    let own = manifest
        .groups
        .iter()
        .filter_map(|(group, members)| Some(Block::Own { group, setting: members.setting.as_deref()? }));
    let usual = manifest.groups.is_empty() || manifest.groups.values().any(|group| group.setting.is_none());
    usual.then_some(Block::Usual).into_iter().chain(own).collect()
}

impl<'m> Block<'m> {
    /// The setting of the scale; `None` for its usual one.
    pub(crate) fn setting(self) -> Option<&'m str> {
        match self {
            Self::Usual => None,
            Self::Own { setting, .. } => Some(setting),
        }
    }

    /// Its groups, by name.
    pub(crate) fn groups(self, manifest: &'m Manifest) -> impl Iterator<Item = (&'m String, &'m Group)> {
        manifest.groups.iter().filter(move |(name, group)| match self {
            Self::Usual => group.setting.is_none(),
            Self::Own { group, .. } => *name == group,
        })
    }

    /// Where the paper prints it. A checked manifest has it.
    pub(crate) fn paper(self, manifest: &'m Manifest) -> Option<&'m Paper> {
        match self {
            Self::Usual => manifest.paper.as_ref(),
            Self::Own { group, .. } => manifest.groups[group].paper.as_ref(),
        }
    }

    /// Captions of which samples are shown.
    pub(crate) fn captions(self, manifest: &'m Manifest) -> &'m [String] {
        match self {
            Self::Usual => &[],
            Self::Own { group, .. } => &manifest.groups[group].captions,
        }
    }

    /// All cells, the baseline first.
    pub(crate) fn members(self, manifest: &'m Manifest) -> Vec<Member<'m>> {
        let (baseline, id, path) = match self {
            Self::Usual => (&manifest.baseline, "baseline".to_owned(), "baseline".to_owned()),
            Self::Own { group, .. } => {
                (&manifest.groups[group].baseline, format!("{group}/baseline"), format!("groups.{group}.baseline"))
            }
        };
        let baseline = baseline.iter().map(|cell| Member {
            id: id.clone(),
            path: path.clone(),
            group: None,
            label: "baseline",
            cell,
        });
        let others = self.groups(manifest).flat_map(|(group, members)| {
            members.cells.iter().map(move |(label, cell)| Member {
                id: format!("{group}/{label}"),
                path: format!("groups.{group}.cells.{label}"),
                group: Some(group.as_str()),
                label,
                cell,
            })
        });
        baseline.chain(others).collect()
    }
}

impl Member<'_> {
    pub(crate) fn title(&self) -> String {
        self.cell.title.clone().unwrap_or_else(|| self.label.to_owned())
    }

    /// The cell as one that cannot be run.
    pub(crate) fn not_run(&self, claims: &[Claim], reason: &str) -> NotRun {
        let ids = self.cell.claim.iter().chain(&self.cell.further_claims);
        let claims = ids.filter_map(|id| claims.iter().find(|claim| claim.id == *id).cloned()).collect();
        NotRun { cell: self.id.clone(), title: self.title(), claims, reason: reason.to_owned() }
    }
}

/// Names, claims that exist, and that each block has its own `paper` and `baseline`, and they where they are used.
pub(crate) fn check(manifest: &Loaded<Manifest>, claims: &[Claim], problems: &mut Problems) {
    let Loaded { node, value, .. } = manifest;
    let groups = node.descend("groups");
    for (name, group) in &value.groups {
        validate::name(name, &groups.place_of_key(name), problems);
        let group_node = groups.get(name).unwrap_or(groups);
        let cells = group_node.descend("cells");
        for label in group.cells.keys() {
            validate::name(label, &cells.place_of_key(label), problems);
            if label == "baseline" && group.setting.is_some() {
                problems.add(&cells.place_of_key(label), "the name `baseline` is that of the group's own baseline");
            }
        }
        if !group.captions.is_empty() && group.setting.is_none() {
            problems.add(&group_node.place_of_key("captions"), "`captions` stands here only beside `setting`");
        }
        for (key, given) in [("paper", group.paper.is_some()), ("baseline", group.baseline.is_some())] {
            match (given, &group.setting) {
                (true, None) => {
                    problems.add(&group_node.place_of_key(key), format!("`{key}` stands here only beside `setting`"));
                }
                (false, Some(setting)) => {
                    let message = format!(
                        "`{key}` is missing in `groups.{name}`: with `setting: {setting}` the group has its own"
                    );
                    problems.add(&groups.place_of_key(name), message);
                }
                _ => {}
            }
        }
    }
    let usual = blocks(value).contains(&Block::Usual);
    for (key, given) in [("paper", value.paper.is_some()), ("baseline", value.baseline.is_some())] {
        if usual && !given {
            problems.add(&node.place, format!("missing key `{key}`"));
        } else if !usual && given {
            problems.add(&node.place_of_key(key), format!("`{key}` is of no use: every group has its own"));
        }
    }
    for block in blocks(value) {
        for member in block.members(value) {
            let cell_node = node.descend(&member.path);
            let own = member.cell.claim.iter().map(|id| (id, cell_node.place_of("claim")));
            let places = cell_node.descend("further_claims").items().iter().map(|item| item.place.clone());
            let further = member.cell.further_claims.iter().zip(places);
            for (id, place) in own.chain(further) {
                if !claims.iter().any(|claim| claim.id == *id) {
                    let hint = allowed(id, claims.iter().map(|claim| claim.id.as_str()));
                    problems.add(&place, format!("unknown claim `{id}`{hint}"));
                }
            }
        }
    }
}
