//! The stack machine.

use std::collections::BTreeMap;

use super::{Node, Pickle, PickleFault, Value};

/// Values that one program may make: a checkpoint of a thousand tensors makes some fifty thousand.
const MOST_VALUES: usize = 1 << 22;

/// Bytes of the name of a class with its module.
const LONGEST_NAME: usize = 1 << 10;

/// Follows the program at the start of `program` to its end; what comes behind is not looked at.
///
/// Instructions of the protocols 2 to 5 are known, in which PyTorch has always written.
///
/// # Errors
/// The program ends early, takes what is not there, uses other instructions, or makes millions of values.
pub(in crate::weights) fn read(program: &[u8]) -> Result<Pickle<'_>, PickleFault> {
    let mut machine = Machine {
        program,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
        nodes: Vec::new(),
        budget: MOST_VALUES,
    };
    let run = machine.run();
    let Machine { at, nodes, .. } = machine;
    match run {
        Ok(root) => Ok(Pickle { nodes, root, length: at }),
        Err(reason) => Err(PickleFault { at, reason }),
    }
}

type Step<T> = Result<T, String>;

struct Machine<'a> {
    program: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack that nothing but a mark's own instruction reaches below.
    marks: Vec<usize>,
    memo: BTreeMap<usize, Value<'a>>,
    nodes: Vec<Node<'a>>,
    /// Values that may still be made.
    budget: usize,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Step<Value<'a>> {
        loop {
            let instruction = self.byte()?;
            match instruction {
                b'.' => return self.pop(),
                0x80 => self.protocol()?,
                0x95 => drop(self.take(8)?), // frames only help readers to buffer
                b'(' | b'0' | b'1' | b'2' => self.arrange(instruction)?,
                b'q' | b'r' | b'h' | b'j' | 0x94 => self.remember(instruction)?,
                b']' | b')' | b'}' | 0x8f | b'l' | b't' | b'd' | 0x85..=0x87 | 0x91 => self.collect(instruction)?,
                b'a' | b'e' | b's' | b'u' | 0x90 => self.extend(instruction)?,
                b'c' | 0x93 | b'R' | 0x81 | 0x92 | b'b' | b'Q' => self.call(instruction)?,
                _ => {
                    let value = self.literal(instruction)?;
                    self.push(value)?;
                }
            }
        }
    }

    fn protocol(&mut self) -> Step<()> {
        match self.byte()? {
            0..=5 => Ok(()),
            other => Err(format!("pickle protocol {other} is not known")),
        }
    }

    /// Numbers, texts and constants.
    fn literal(&mut self, instruction: u8) -> Step<Value<'a>> {
        Ok(match instruction {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.number(1)? as i64),
            b'M' => Value::Int(self.number(2)? as i64),
            b'J' => Value::Int(i64::from(self.number(4)? as i32)),
            0x8a | 0x8b => {
                let count = self.number(if instruction == 0x8a { 1 } else { 4 })?;
                integer(self.take(count)?)
            }
            b'G' => self.take(8).map(|_| Value::Opaque)?,
            b'X' | 0x8c | 0x8d | b'U' | b'T' => {
                let count = self.number(match instruction {
                    0x8c | b'U' => 1,
                    0x8d => 8,
                    _ => 4,
                })?;
                let bytes = self.take(count)?;
                std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text)
            }
            b'C' | b'B' | 0x8e | 0x96 => {
                let count = self.number(match instruction {
                    b'C' => 1,
                    b'B' => 4,
                    _ => 8,
                })?;
                Value::Bytes(self.take(count)?)
            }
            0x82..=0x84 => self.take(1 << (instruction - 0x82)).map(|_| Value::Opaque)?,
            _ => {
                return Err(format!(
                    "instruction 0x{instruction:02x} is none that PyTorch writes (pickle protocols 2 to 5)"
                ));
            }
        })
    }

    /// Marks, and what only moves the top of the stack.
    fn arrange(&mut self, instruction: u8) -> Step<()> {
        match instruction {
            b'(' => {
                self.spend(1)?;
                self.marks.push(self.stack.len());
            }
            b'0' if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            _ => {
                let top = self.top()?;
                self.push(top)?;
            }
        }
        Ok(())
    }

    /// Puts the top of the stack under a number, or gets it back.
    fn remember(&mut self, instruction: u8) -> Step<()> {
        let place = match instruction {
            0x94 => self.memo.len(),
            b'q' | b'h' => self.number(1)?,
            _ => self.number(4)?,
        };
        if matches!(instruction, b'h' | b'j') {
            let value = *self.memo.get(&place).ok_or_else(|| format!("nothing was stored under number {place}"))?;
            return self.push(value);
        }
        self.spend(1)?;
        self.memo.insert(place, self.top()?);
        Ok(())
    }

    /// Makes a container of what lies on the stack. Sets become lists.
    fn collect(&mut self, instruction: u8) -> Step<()> {
        let node = match instruction {
            b']' | 0x8f => Node::List(Vec::new()),
            b')' => Node::Tuple(Vec::new()),
            b'}' => Node::Dict(Vec::new()),
            b'l' | 0x91 => Node::List(self.since_mark()?),
            b't' => Node::Tuple(self.since_mark()?),
            b'd' => Node::Dict(pairs(&self.since_mark()?)?),
            _ => {
                let count = usize::from(instruction - 0x84);
                let start = self.stack.len().checked_sub(count).filter(|&start| start >= self.floor());
                let start = start.ok_or("the stack has too few values for a tuple")?;
                Node::Tuple(self.stack.split_off(start))
            }
        };
        self.make(node)
    }

    /// Adds to the container below. What a foreign object would have been given is dropped.
    fn extend(&mut self, instruction: u8) -> Step<()> {
        let values = match instruction {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.since_mark()?,
        };
        let Value::Node(number) = self.top()? else { return Err("it adds to what is no container".to_owned()) };
        let node = self.nodes.get_mut(number).ok_or("it adds to nothing")?;
        match (node, instruction) {
            (Node::List(elements), b'a' | b'e' | 0x90) => elements.extend(values),
            (Node::Dict(entries), b's' | b'u') => entries.extend(pairs(&values)?),
            (Node::Object { .. }, _) => {}
            _ => return Err("it adds to what is no such container".to_owned()),
        }
        Ok(())
    }

    /// Names classes and functions, and writes down what would be called.
    fn call(&mut self, instruction: u8) -> Step<()> {
        let node = match instruction {
            b'c' => global(self.line()?, self.line()?)?,
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err("the name of a class is no text".to_owned());
                };
                global(module, name)?
            }
            b'b' => return self.set_state(),
            b'Q' => Node::Persistent(self.pop()?),
            _ => {
                if instruction == 0x92 {
                    self.pop()?; // named arguments
                }
                let (arguments, class) = (self.pop()?, self.pop()?);
                match self.ordinary_dict(class, arguments)? {
                    Some(entries) => Node::Dict(entries),
                    None => Node::Object { class, arguments, state: None },
                }
            }
        };
        self.make(node)
    }

    /// Gives the object below the top its state. Dicts keep only their entries.
    fn set_state(&mut self) -> Step<()> {
        let given = self.pop()?;
        if let Value::Node(number) = self.top()?
            && let Some(Node::Object { state, .. }) = self.nodes.get_mut(number)
        {
            *state = Some(given);
        }
        Ok(())
    }

    /// The entries of a call that makes a kind of dict.
    fn ordinary_dict(&mut self, class: Value, arguments: Value) -> Step<Option<Vec<(Value<'a>, Value<'a>)>>> {
        let global = self.peek(class).and_then(|node| match node {
            Node::Global { module, name } => Some((*module, *name)),
            _ => None,
        });
        let ("collections", kind @ ("OrderedDict" | "defaultdict")) = global.unwrap_or_default() else {
            return Ok(None);
        };
        let mut entries = Vec::new();
        if let Some(Node::Tuple(arguments)) = self.peek(arguments)
            && let [first] = arguments[..]
            && kind == "OrderedDict"
            && let Some(Node::List(listed)) = self.peek(first)
        {
            for &pair in listed {
                match self.peek(pair) {
                    Some(Node::Tuple(pair) | Node::List(pair)) if pair.len() == 2 => entries.push((pair[0], pair[1])),
                    _ => return Err("an OrderedDict is made of what are no pairs".to_owned()),
                }
            }
        }
        self.spend(entries.len())?;
        Ok(Some(entries))
    }

    fn peek(&self, value: Value) -> Option<&Node<'a>> {
        match value {
            Value::Node(number) => self.nodes.get(number),
            _ => None,
        }
    }

    fn make(&mut self, node: Node<'a>) -> Step<()> {
        let number = self.nodes.len();
        self.push(Value::Node(number))?;
        self.nodes.push(node);
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        self.spend(1)?;
        self.stack.push(value);
        Ok(())
    }

    fn spend(&mut self, values: usize) -> Step<()> {
        let left = self.budget.checked_sub(values);
        self.budget = left.ok_or_else(|| format!("it makes more than {MOST_VALUES} values"))?;
        Ok(())
    }

    /// The height that the stack must keep.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Step<Value<'a>> {
        self.stack[self.floor()..].last().copied().ok_or_else(|| "it takes from an empty stack".to_owned())
    }

    fn pop(&mut self) -> Step<Value<'a>> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn since_mark(&mut self) -> Step<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned little-endian number of `width` bytes.
    fn number(&mut self, width: usize) -> Step<usize> {
        let number = self.take(width)?.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).map_err(|_| format!("{number} is too large"))
    }

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let rest = &self.program[self.at..];
        let taken = rest.get(..count).ok_or_else(|| format!("it ends where {count} more bytes are needed"))?;
        self.at += count;
        Ok(taken)
    }

    /// The text up to the end of the line.
    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.program[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("it ends within a name")?;
        self.at += length + 1;
        let line = rest[..length].strip_suffix(b"\r").unwrap_or(&rest[..length]);
        std::str::from_utf8(line).map_err(|_| "a name is no UTF-8 text".to_owned())
    }
}

/// A class or function. Its texts may be shared by many, of which each is told with its own.
fn global<'a>(module: &'a str, name: &'a str) -> Step<Node<'a>> {
    match module.len() + name.len() {
        0..=LONGEST_NAME => Ok(Node::Global { module, name }),
        bytes => Err(format!("the name of a class has {bytes} bytes")),
    }
}

/// Keys and values in turn.
fn pairs<'a>(values: &[Value<'a>]) -> Step<Vec<(Value<'a>, Value<'a>)>> {
    let (pairs, rest) = values.as_chunks();
    if !rest.is_empty() {
        return Err("a key has no value".to_owned());
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

/// A signed little-endian integer of any length.
fn integer(bytes: &[u8]) -> Value<'_> {
    let mut wide = if bytes.last().is_some_and(|last| last & 0x80 != 0) { [0xff; 8] } else { [0; 8] };
    match wide.get_mut(..bytes.len()) {
        Some(low) => {
            low.copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        }
        None => Value::Long(bytes),
    }
}
