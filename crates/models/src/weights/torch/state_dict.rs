//! Finding the state dict in a checkpoint: `{name: tensor}` at the top or under a key such as `model` or `ema`, a pickled
//! module, or a TorchScript module.

use std::collections::BTreeSet;

use super::tensor::is_tensor;
use crate::weights::error::Fault;
use crate::weights::pickle::{Pickle, Value};

/// Keys that training programs keep their network under, the one that is meant for use first. The released DMP code,
/// and DiT's, load `ema` where there is one.
const USUAL: [&str; 6] = ["ema", "model_ema", "ema_state_dict", "model", "state_dict", "model_state_dict"];

/// Prefixes that wrappers put in front of all names: `DataParallel` and `torch.compile`.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// What the top of a checkpoint is called.
const TOP: &str = ".";

/// Levels of containers or modules; more than any network has.
const DEEPEST: usize = 64;

/// Bytes of a name, and tensors of a network; far more than any has.
const LONGEST: usize = 1 << 10;
const MOST: usize = 1 << 17;

/// A state dict.
#[derive(Debug)]
pub(super) struct StateDict<'a> {
    /// Where it was found: keys joined by dots, or `.`.
    pub(super) part: String,
    /// All that were there to choose from.
    pub(super) parts: Vec<String>,
    pub(super) tensors: Vec<(String, Value<'a>)>,
}

/// Finds the state dict `part`; without a choice the only one, or the first that has one of the [`USUAL`] keys, or the
/// tensors at the top.
///
/// # Errors
/// There is none, not the one asked for, or several and no choice.
pub(super) fn find<'a>(pickle: &Pickle<'a>, part: Option<&str>) -> Result<StateDict<'a>, Fault> {
    let candidates = candidates(pickle);
    let place = |wanted: &str| candidates.iter().position(|(path, _)| path == wanted);
    let parts = || candidates.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    let chosen = match part {
        Some(wanted) => place(wanted).ok_or_else(|| format!("has no part {wanted:?}")),
        None if candidates.len() == 1 => Ok(0),
        None => {
            let usual = USUAL.iter().find_map(|key| place(key)).or_else(|| place(TOP));
            usual.ok_or_else(|| "holds several state dicts".to_owned())
        }
    };
    if candidates.is_empty() {
        return Err(Fault::unsupported("it holds no tensors by name", "check that it is the file that is meant"));
    }
    let chosen = chosen.map_err(|reason| Fault::Part { reason, parts: parts() })?;
    let (path, value) = &candidates[chosen];
    let mut tensors = tensors(pickle, *value).map_err(Fault::damaged)?;
    while let Some(wrapper) = WRAPPERS.iter().find(|w| tensors.iter().all(|(name, _)| name.starts_with(**w))) {
        tensors.iter_mut().for_each(|(name, _)| drop(name.drain(..wrapper.len())));
    }
    Ok(StateDict { part: path.clone(), parts: parts(), tensors })
}

/// All dicts that hold tensors under texts, and all modules, by their path; a dict is looked into only through texts, so
/// that the numbered states of an optimiser are none.
fn candidates<'a>(pickle: &Pickle<'a>) -> Vec<(String, Value<'a>)> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut waiting = vec![(String::new(), pickle.root, 0)];
    while let Some((path, value, depth)) = waiting.pop() {
        let Value::Node(number) = value else { continue };
        if !seen.insert(number) {
            continue;
        }
        let name = || if path.is_empty() { TOP.to_owned() } else { path.clone() };
        let Some(entries) = pickle.dict(value) else {
            if module(pickle, value).is_some() {
                found.push((name(), value));
            }
            continue;
        };
        let texts = || entries.iter().filter(|(key, _)| matches!(key, Value::Text(_)));
        if texts().any(|(_, value)| is_tensor(pickle, *value)) {
            found.push((name(), value));
        }
        for (key, child) in texts().rev() {
            if let Value::Text(key) = key
                && (pickle.dict(*child).is_some() || module(pickle, *child).is_some())
                && depth < DEEPEST
                && path.len() + key.len() < LONGEST
                && waiting.len() + found.len() < MOST
            {
                waiting.push((join(&path, key), *child, depth + 1));
            }
        }
    }
    found
}

/// The attributes of a pickled `torch.nn.Module` or of a TorchScript object.
fn module<'a>(pickle: &Pickle<'a>, value: Value) -> Option<Value<'a>> {
    let (class, _, state) = pickle.object(value)?;
    let state = state?;
    pickle.dict(state)?;
    let eager = ["_parameters", "_modules"].iter().all(|key| pickle.entry(state, key).is_some());
    let scripted = pickle.global(class).is_some_and(|(module, _)| module.starts_with("__torch__"));
    (eager || scripted).then_some(state)
}

/// Names and tensors of a state dict or module.
fn tensors<'a>(pickle: &Pickle<'a>, root: Value<'a>) -> Result<Vec<(String, Value<'a>)>, String> {
    let mut found = Vec::new();
    let mut waiting = vec![(String::new(), root, 0)];
    let mut visits = 0;
    while let Some((path, value, depth)) = waiting.pop() {
        visits += 1;
        if visits > MOST || path.len() > LONGEST || depth > DEEPEST {
            return Err("its modules hold more modules than any network".to_owned());
        }
        if is_tensor(pickle, value) {
            found.push((path, value));
            continue;
        }
        // Of a module only its attributes are looked into, of an attribute only modules: a dict of tensors within a
        // state dict is another part.
        let attributes = match module(pickle, value) {
            Some(state) => state,
            None if depth == 0 => value,
            None => continue,
        };
        let inner = ["_parameters", "_buffers", "_modules"].iter().filter_map(|key| pickle.entry(attributes, key));
        let mut groups: Vec<Value> = inner.collect();
        if groups.is_empty() {
            groups.push(attributes);
        }
        for (key, child) in groups.iter().filter_map(|group| pickle.dict(*group)).flatten() {
            if let Value::Text(key) = key
                && matches!(child, Value::Node(_))
            {
                if waiting.len() > MOST || path.len() + key.len() > LONGEST {
                    return Err("it holds more tensors, or longer names, than any network".to_owned());
                }
                waiting.push((join(&path, key), *child, depth + 1));
            }
        }
    }
    found.reverse();
    Ok(found)
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
