//! Tensors as PyTorch pickles them: a call of `torch._utils._rebuild_tensor_v2` or one of its relatives, with a storage
//! that is kept outside of the pickle.

use crate::weights::element::Element;
use crate::weights::pickle::{Node, Pickle, Value};

/// A tensor as a pickle describes it; nothing of it is checked against the file yet.
#[derive(Debug)]
pub(super) struct Described<'a> {
    pub(super) storage: StorageId<'a>,
    pub(super) element: Element,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    /// Elements of its storage before its first one.
    pub(super) offset: usize,
}

/// What a pickle says about a storage.
#[derive(Clone, Copy, Debug)]
pub(super) struct StorageId<'a> {
    /// Its name in the file.
    pub(super) key: &'a str,
    /// Type of its elements; `None` where it is plain bytes.
    pub(super) element: Option<Element>,
    /// Its elements that lie before those meant (PyTorch before 0.4 names parts of storages).
    pub(super) skipped: usize,
}

/// Axes of a tensor, as many as PyTorch has. Tensors may share one tuple of sizes, which each of them has for itself here.
const MOST_AXES: usize = 64;

/// Wrappers around a tensor, one within the other.
const DEEPEST: usize = 8;

/// Whether `value` would be made by one of PyTorch's functions that make tensors.
pub(super) fn is_tensor(pickle: &Pickle, value: Value) -> bool {
    let class = pickle.object(value).and_then(|(class, ..)| pickle.global(class));
    class.is_some_and(|(module, name)| is_builder(module, name))
}

/// Whether PyTorch makes tensors with the function.
fn is_builder(module: &str, name: &str) -> bool {
    matches!(module, "torch._utils" | "torch._tensor" | "torch.tensor") && name.starts_with("_rebuild")
}

/// Whether a class or function belongs to how PyTorch writes tensors and containers, in contrast to what a checkpoint
/// carries along.
pub(super) fn is_own(module: &str, name: &str) -> bool {
    let container = matches!((module, name), ("collections", "OrderedDict" | "defaultdict"));
    let plain = matches!((module, name), ("torch", "Size" | "device") | ("torch._utils", _));
    let storage = module.starts_with("torch") && (name.ends_with("Storage") || element_of_dtype(name).is_some());
    container || plain || storage || is_builder(module, name) || module.starts_with("__torch__")
}

/// Reads the description of a tensor.
///
/// # Errors
/// It is none, is of a kind that is not read (sparse, quantised), or its arguments make no sense.
pub(super) fn describe<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Result<Described<'a>, String> {
    let (mut class, mut arguments, _) = pickle.object(value).ok_or("it is no tensor")?;
    for _ in 0..DEEPEST {
        let (_, name) = pickle.global(class).ok_or("it is made by no function")?;
        let given = pickle.sequence(arguments).ok_or("it is made without arguments")?;
        let argument = |place: usize| given.get(place).copied().ok_or_else(|| format!("{name} lacks arguments"));
        match name {
            "_rebuild_parameter" | "_rebuild_parameter_with_state" => {
                (class, arguments, _) = pickle.object(argument(0)?).ok_or("it is a parameter without a tensor")?;
            }
            "_rebuild_from_type" | "_rebuild_from_type_v2" => (class, arguments) = (argument(0)?, argument(2)?),
            "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3" => {
                let storage = storage(pickle, argument(0)?)?;
                let element = if name == "_rebuild_tensor_v3" {
                    let (_, dtype) = pickle.global(argument(6)?).ok_or("its type is none of PyTorch's")?;
                    element_of_dtype(dtype).ok_or_else(|| format!("its type {dtype} is not read"))?
                } else {
                    storage.element.ok_or("its storage has no type")?
                };
                let (shape, strides) = (sizes(pickle, argument(2)?)?, sizes(pickle, argument(3)?)?);
                let offset = size(argument(1)?)?;
                let offset = offset.checked_add(storage.skipped).ok_or("it starts beyond all memory")?;
                return Ok(Described { storage, element, shape, strides, offset });
            }
            other => return Err(format!("{other} makes a kind of tensor that is not read")),
        }
    }
    Err("it is wrapped too often".to_owned())
}

/// All storages that a pickle names.
///
/// # Errors
/// One is of a type that is not known, or its name makes no sense.
pub(super) fn storages<'a>(pickle: &Pickle<'a>) -> Result<Vec<StorageId<'a>>, String> {
    let found = pickle.persistent().filter(|&id| is_storage(pickle, id));
    found.map(|id| storage_of_id(pickle, id)).collect()
}

fn is_storage(pickle: &Pickle, id: Value) -> bool {
    pickle.sequence(id).and_then(|parts| parts.first()) == Some(&Value::Text("storage"))
}

fn storage<'a>(pickle: &Pickle<'a>, value: Value) -> Result<StorageId<'a>, String> {
    match pickle.node(value) {
        Some(&Node::Persistent(id)) => storage_of_id(pickle, id),
        _ => Err("it has no storage".to_owned()),
    }
}

/// Reads `("storage", class, key, device, elements)`, in the legacy format with an optional part
/// `(key, first element, elements)` behind.
fn storage_of_id<'a>(pickle: &Pickle<'a>, id: Value) -> Result<StorageId<'a>, String> {
    let parts = pickle.sequence(id).unwrap_or_default();
    let [Value::Text("storage"), class, Value::Text(key), _, _, rest @ ..] = parts else {
        return Err("the name of its storage is none of PyTorch's".to_owned());
    };
    let (_, class) = pickle.global(*class).ok_or("the class of its storage has no name")?;
    let element = match class {
        "UntypedStorage" | "_UntypedStorage" => None,
        _ => Some(element_of_storage(class).ok_or_else(|| format!("its storage is a {class}, which is not read"))?),
    };
    let skipped = match rest.first().and_then(|&part| pickle.sequence(part)) {
        Some(&[_, first, _]) => size(first)?,
        _ => 0,
    };
    Ok(StorageId { key, element, skipped })
}

fn sizes(pickle: &Pickle, value: Value) -> Result<Vec<usize>, String> {
    // torch.Size(..) where a checkpoint pickles it so, otherwise a plain tuple.
    let value = match pickle.object(value) {
        Some((_, arguments, _)) => pickle.sequence(arguments).and_then(|given| given.first()).copied(),
        None => Some(value),
    };
    let values = value.and_then(|value| pickle.sequence(value)).ok_or("its shape is no tuple")?;
    if values.len() > MOST_AXES {
        return Err(format!("it has {} axes", values.len()));
    }
    values.iter().map(|&value| size(value)).collect()
}

fn size(value: Value) -> Result<usize, String> {
    match value {
        Value::Int(number) => usize::try_from(number).map_err(|_| format!("{number} is no size")),
        _ => Err("a size is no integer".to_owned()),
    }
}

fn element_of_storage(class: &str) -> Option<Element> {
    Some(match class {
        "DoubleStorage" => Element::F64,
        "FloatStorage" => Element::F32,
        "HalfStorage" => Element::F16,
        "BFloat16Storage" => Element::BF16,
        "LongStorage" => Element::I64,
        "IntStorage" => Element::I32,
        "ShortStorage" => Element::I16,
        "CharStorage" => Element::I8,
        "ByteStorage" => Element::U8,
        "BoolStorage" => Element::Bool,
        _ => return None,
    })
}

fn element_of_dtype(name: &str) -> Option<Element> {
    Some(match name {
        "float64" => Element::F64,
        "float32" => Element::F32,
        "float16" => Element::F16,
        "bfloat16" => Element::BF16,
        "int64" => Element::I64,
        "int32" => Element::I32,
        "int16" => Element::I16,
        "int8" => Element::I8,
        "uint64" => Element::U64,
        "uint32" => Element::U32,
        "uint16" => Element::U16,
        "uint8" => Element::U8,
        "bool" => Element::Bool,
        _ => return None,
    })
}
