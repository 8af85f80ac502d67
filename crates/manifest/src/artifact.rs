//! An artifact's plan: each block of its manifest in its setting of the scale, then all of them together.

use std::collections::BTreeSet;

use crate::block::{self, Block, blocks};
use crate::chain::Chains;
use crate::claim::Claim;
use crate::expand::expand;
use crate::files::{Loaded, typed};
use crate::manifest::Manifest;
use crate::networks::Networks;
use crate::overrides::Override;
use crate::plan::{Input, NotRun, Plan, PlannedStage, Table};
use crate::preset::Preset;
use crate::problem::{Error, Place, Problems};
use crate::scale::Scale;
use crate::workspace::{Request, Workspace, stem, typed_name};
use crate::{schema, table};

/// A block that has been planned.
struct Planned {
    table: Table,
    not_run: Vec<NotRun>,
    stages: Vec<PlannedStage>,
}

/// Everything that the blocks of an artifact have in common.
struct Artifact<'a> {
    workspace: &'a Workspace,
    manifest: &'a Loaded<Manifest>,
    preset: &'a Loaded<Preset>,
    preset_name: &'a str,
    claims: &'a [Claim],
    request: &'a Request,
    reach: &'a Reach,
}

impl Workspace {
    /// Plans every cell of an artifact, by name (`table4`) or path (`experiments/table4.yaml`). A block of several whose
    /// data or weights are missing is left out, and its cells are among [`Plan::not_run`].
    pub fn load_artifact(&self, name: &str, request: &Request) -> Result<Plan, Error> {
        let mut problems = Problems::default();
        let path = self.files.path(name, "", &self.artifacts(), &typed_name(name))?;
        let reach = Reach::of(parse_overrides(&request.overrides, &mut problems));
        let Some(manifest) = problems.keep(self.files.load::<Manifest>(&path))? else {
            return Err(problems.into_error());
        };
        let artifact = &manifest.value.artifact;
        if *artifact != stem(&manifest.file) {
            let message =
                format!("`artifact` must be `{}`, the name of the file, found `{artifact}`", stem(&manifest.file));
            problems.add(&manifest.node.place_of("artifact"), message);
        }
        let (preset_name, asked_at) = reach.preset(&manifest)?;
        let preset = problems.keep(self.files.preset(&preset_name, &asked_at))?;
        let claims = problems.keep(self.files.claims())?;
        if let Some(claims) = &claims {
            block::check(&manifest, claims, &mut problems);
        }
        // What is wrong with the scale is said together with what is wrong with the manifest.
        let on_scale: Vec<&Override> = reach.scale.iter().collect();
        _ = problems.keep(self.scale(&request.scale, None, &on_scale))?;
        let (Some(preset), Some(claims)) = (preset, claims) else { return Err(problems.into_error()) };
        problems.finish(())?;
        let (manifest, preset) = (&manifest, &preset);
        let (preset_name, claims, reach) = (preset_name.as_str(), claims.as_slice(), &reach);
        Artifact { workspace: self, manifest, preset, preset_name, claims, request, reach }.plan()
    }

    /// A scale in one of its settings, with overrides; `None` where it has no such setting.
    fn scale(
        &self,
        name: &str,
        setting: Option<&str>,
        overrides: &[&Override],
    ) -> Result<Option<Loaded<Scale>>, Error> {
        let place = Place::Option(format!("--scale {name}").into());
        let Some(mut node) = self.files.scale(name, setting, &place)? else { return Ok(None) };
        overrides.iter().for_each(|one| one.put(&mut node));
        let value = typed(&node, &schema::scale(), "")?;
        Ok(Some(Loaded { file: name.to_owned(), node, value }))
    }
}

impl Artifact<'_> {
    fn plan(&self) -> Result<Plan, Error> {
        let (mut tables, mut not_run, mut stages) = (Vec::new(), Vec::new(), Vec::new());
        let (mut seen, mut first_error) = (BTreeSet::new(), None);
        let mut missing = None;
        for block in blocks(&self.manifest.value) {
            match self.block(block) {
                Ok(Ok(planned)) => {
                    tables.push(planned.table);
                    not_run.extend(planned.not_run);
                    stages.extend(planned.stages.into_iter().filter(|stage| seen.insert(stage.key)));
                }
                Ok(Err(reason)) => not_run.extend(self.left_out(block, &reason)),
                Err(error @ Error::Missing(_)) => {
                    let text = error.to_string();
                    not_run.extend(self.left_out(block, &text));
                    missing.get_or_insert(text);
                    first_error.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match first_error {
            Some(error) if tables.is_empty() => Err(error),
            _ => {
                let Manifest { artifact, title, .. } = self.manifest.value.clone();
                let (file, scale_name) = (self.manifest.file.clone().into(), stem(&self.request.scale));
                Ok(Plan { artifact, title, file, scale_name, tables, not_run, missing, stages })
            }
        }
    }

    /// All cells of a block, none of which can be run; a cell that has a reason of its own keeps it.
    fn left_out(&self, block: Block<'_>, reason: &str) -> Vec<NotRun> {
        let members = block.members(&self.manifest.value);
        let of =
            |member: &block::Member<'_>| member.not_run(self.claims, member.cell.not_run.as_deref().unwrap_or(reason));
        members.iter().map(of).collect()
    }

    /// Plans a block, or says why it cannot be run at this scale.
    fn block(&self, block: Block<'_>) -> Result<Result<Planned, String>, Error> {
        let Self { workspace, manifest, request, .. } = self;
        let members = block.members(&manifest.value);
        if members.iter().skip(1).all(|member| member.cell.not_run.is_some()) {
            return Ok(Err("nothing to compare it with".to_owned()));
        }
        let preset = Override::of_preset(&self.preset.node);
        let on_scale: Vec<&Override> = preset.iter().chain(&self.reach.scale).collect();
        let Some(scale) = workspace.scale(&request.scale, block.setting(), &on_scale)? else {
            let setting = block.setting().unwrap_or_default();
            return Ok(Err(format!("scale `{}` has no setting `{setting}`", stem(&request.scale))));
        };
        let networks = Networks::load(&workspace.files, &scale)?;
        let base = &networks.base;
        let expanded = expand(manifest, block, self.preset, &self.reach.method, self.claims, &base.denoiser)?;
        let judge = networks.judge(&scale);
        let mut gather = workspace.gather();
        let measures = &manifest.value.measures;
        let inputs = networks.gather(&scale, measures, &mut gather);
        let trained = expanded.cells.iter().map(|cell| {
            let (file, place) = cell.trained.as_ref()?;
            gather.weights(file, place)
        });
        let trained: Vec<Option<Input>> = trained.collect();
        gather.finish()?;
        let shown = block.captions(&manifest.value);
        let chains = Chains::new(&scale.value, base, judge, measures, shown, inputs)?;
        let seeds = request.seeds.clone().unwrap_or_else(|| scale.value.seeds.clone());
        let planned = table::plan(&expanded, &trained, chains, &seeds, scale.value.train.iterations)?;
        let groups = table::groups(block.groups(&manifest.value));
        let table = Table {
            block: block.setting().and(groups.first().cloned()),
            paper: block.paper(&manifest.value).expect("checked").clone(),
            scale_name: stem(&request.scale),
            overrides: request.overrides.clone(),
            preset: self.preset_name.to_owned(),
            method: expanded.base.clone(),
            seeds,
            space: base.space.clone(),
            denoiser: base.denoiser.clone(),
            diffusion: base.diffusion.clone(),
            groups,
            cells: planned.cells,
            default_cell: planned.default_cell,
            positive_control: planned.positive_control,
            contrasts: planned.contrasts,
            reference: planned.reference,
            floor: planned.floor,
            unmeasured: planned.unmeasured,
            scale: scale.value.clone(),
        };
        Ok(Ok(Planned { table, not_run: expanded.not_run, stages: planned.stages }))
    }
}

pub(crate) fn parse_overrides(texts: &[String], problems: &mut Problems) -> Vec<Override> {
    let mut overrides = Vec::new();
    for text in texts {
        match Override::parse(text) {
            Ok(one) => overrides.push(one),
            Err(found) => problems.extend(found),
        }
    }
    overrides
}

/// Overrides by what they reach.
#[derive(Default)]
struct Reach {
    method: Vec<Override>,
    preset: Option<Override>,
    scale: Vec<Override>,
}

impl Reach {
    fn of(overrides: Vec<Override>) -> Self {
        let mut reach = Self::default();
        for one in overrides {
            match one.below_method() {
                Some("preset") => reach.preset = Some(one),
                Some(_) => reach.method.push(one),
                None => reach.scale.push(one),
            }
        }
        reach
    }

    /// The preset's name and where it was chosen.
    fn preset(&self, manifest: &Loaded<Manifest>) -> Result<(String, Place), Error> {
        match &self.preset {
            Some(one) => match one.value.text() {
                Some(name) => Ok((name.to_owned(), one.place.clone())),
                None => {
                    Err(Error::at(&one.place, format!("`method.preset` must be a name, found {}", one.value.value)))
                }
            },
            None => Ok((manifest.value.method.preset.clone(), manifest.node.place_of("method.preset"))),
        }
    }
}
