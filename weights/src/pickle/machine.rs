//! The pickle machine: opcodes of protocols 0 to 5, as `pickletools` documents them.

use std::collections::HashMap;

use crate::error::Problem;
use crate::limits::Limits;

use super::cursor::{Cursor, LONGEST_LINE};
use super::heap::{Global, Heap, Id, Object, Opaque};
use super::storage::Declarations;

/// A pickle that has been run.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) heap: Heap<'a>,
    pub(super) root: Id,
    pub(super) storages: Declarations<'a>,
    /// Globals that were called and are not known, each once.
    pub(super) unknown: Vec<String>,
    /// Where the pickle ends in its bytes.
    pub(super) end: usize,
}

/// Runs the pickle at the start of `bytes`.
pub(super) fn run<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Pickle<'a>, Problem> {
    let longest = usize::try_from(limits.pickle_bytes).unwrap_or(usize::MAX);
    let machine = Machine {
        input: Cursor::new(&bytes[..bytes.len().min(longest)]),
        heap: Heap::new(limits.objects),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        storages: Declarations::default(),
        unknown: Vec::new(),
    };
    machine.run()
}

pub(super) struct Machine<'a> {
    input: Cursor<'a>,
    pub(super) heap: Heap<'a>,
    stack: Vec<Id>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    pub(super) storages: Declarations<'a>,
    pub(super) unknown: Vec<String>,
}

impl<'a> Machine<'a> {
    fn run(mut self) -> Result<Pickle<'a>, Problem> {
        loop {
            let op = self.input.byte()?;
            if op == b'.' {
                let root = self.pop()?;
                let Machine {
                    heap,
                    storages,
                    unknown,
                    input,
                    ..
                } = self;
                return Ok(Pickle {
                    heap,
                    root,
                    storages,
                    unknown,
                    end: input.position(),
                });
            }
            self.step(op)?;
        }
    }

    fn step(&mut self, op: u8) -> Result<(), Problem> {
        match op {
            0x80 => self.input.take(1).map(drop),
            0x95 => self.input.take(8).map(drop),
            b'N' | 0x88 | 0x89 | b'I' | b'K' | b'M' | b'J' | b'L' | 0x8a | 0x8b | b'F' | b'G' => {
                self.number(op)
            }
            b'X' | 0x8c | 0x8d | b'T' | b'U' | b'B' | b'C' | 0x8e | 0x96 | b'S' | b'V' => {
                self.text(op)
            }
            b'(' => self.mark(),
            b'0' => self.discard(),
            b'1' => self.pop_mark().map(drop),
            b'2' => self.top().and_then(|top| self.push_id(top)),
            b'p' | b'q' | b'r' | 0x94 => self.memoize(op),
            b'g' | b'h' | b'j' => self.recall(op),
            b')' | b't' | 0x85..=0x87 | b']' | b'l' | 0x8f | 0x91 | b'}' | b'd' => {
                self.collection(op)
            }
            b'a' | b'e' | 0x90 | b's' | b'u' => self.fill(op),
            b'c' | 0x93 => self.global(op),
            b'R' | 0x81 | 0x92 | b'i' | b'o' => self.construct(op),
            b'P' | b'Q' => self.persistent(op),
            b'b' => self.build(),
            _ => self.fail(format!("opcode {op:#04x} is not supported")),
        }
    }

    fn number(&mut self, op: u8) -> Result<(), Problem> {
        let object = match op {
            b'N' => Object::None,
            0x88 => Object::Bool(true),
            0x89 => Object::Bool(false),
            b'K' => Object::Int(self.input.uint(1)? as i64),
            b'M' => Object::Int(self.input.uint(2)? as i64),
            b'J' => Object::Int(i64::from(self.input.uint(4)? as u32 as i32)),
            0x8a => {
                let n = self.input.uint(1)?;
                long(self.input.take(n)?)
            }
            0x8b => {
                let n = self.input.uint(4)?;
                long(self.input.take(n)?)
            }
            b'G' => self.input.take(8).map(|_| Object::Float)?,
            b'F' => self.input.line().map(|_| Object::Float)?,
            b'L' => {
                let line = self.input.line()?;
                let digits = line.strip_suffix('L').unwrap_or(line);
                digits.parse().map_or(Object::Bytes, Object::Int)
            }
            _ => match self.input.line()? {
                "00" => Object::Bool(false),
                "01" => Object::Bool(true),
                line => line.parse().map_or(Object::Bytes, Object::Int),
            },
        };
        self.push(object)
    }

    fn text(&mut self, op: u8) -> Result<(), Problem> {
        let bytes = match op {
            b'S' => return self.quoted(),
            b'V' => self.input.line()?.as_bytes(),
            b'U' | b'C' | 0x8c => self.input.counted(1)?,
            b'T' | b'B' | b'X' => self.input.counted(4)?,
            _ => self.input.counted(8)?,
        };
        if op == b'V' && bytes.contains(&b'\\') {
            return self.fail("text with escapes is not supported; save with pickle protocol 2");
        }
        let is_text = matches!(op, b'X' | 0x8c | 0x8d | b'V' | b'U' | b'T');
        let text = if is_text {
            std::str::from_utf8(bytes).ok()
        } else {
            None
        };
        self.push(text.map_or(Object::Bytes, Object::Text))
    }

    /// A string of protocol 0, written as Python would print it.
    fn quoted(&mut self) -> Result<(), Problem> {
        let line = self.input.line()?;
        let inner = ["'", "\""]
            .iter()
            .find_map(|q| line.strip_prefix(q)?.strip_suffix(q));
        match inner {
            Some(text) if !text.contains('\\') => self.push(Object::Text(text)),
            _ => self.fail("text with escapes is not supported; save with pickle protocol 2"),
        }
    }

    fn collection(&mut self, op: u8) -> Result<(), Problem> {
        let object = match op {
            b')' => Object::Tuple(Vec::new()),
            b']' | 0x8f => Object::List(Vec::new()),
            b'}' => Object::Dict(Vec::new()),
            b't' => Object::Tuple(self.pop_mark()?),
            b'l' | 0x91 => Object::List(self.pop_mark()?),
            b'd' => {
                let items = self.pop_mark()?;
                Object::Dict(self.pairs(&items)?)
            }
            _ => {
                let n = usize::from(op - 0x84);
                let from = self.height(n)?;
                Object::Tuple(self.stack.split_off(from))
            }
        };
        self.push(object)
    }

    /// APPEND, APPENDS, ADDITEMS, SETITEM, SETITEMS: on anything but a list or a dict the items are dropped.
    fn fill(&mut self, op: u8) -> Result<(), Problem> {
        let items = match op {
            b'a' => vec![self.pop()?],
            b's' => {
                let from = self.height(2)?;
                self.stack.split_off(from)
            }
            _ => self.pop_mark()?,
        };
        let target = self.top()?;
        if matches!(op, b's' | b'u') {
            let pairs = self.pairs(&items)?;
            if let Object::Dict(dict) = self.heap.get_mut(target) {
                dict.extend(pairs);
            }
        } else if let Object::List(list) = self.heap.get_mut(target) {
            list.extend(items);
        }
        Ok(())
    }

    fn pairs(&self, items: &[Id]) -> Result<Vec<(Id, Id)>, Problem> {
        match items.as_chunks::<2>() {
            (pairs, []) => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
            _ => self.fail("a key without a value"),
        }
    }

    fn global(&mut self, op: u8) -> Result<(), Problem> {
        let global = if op == b'c' {
            Global {
                module: self.input.line()?,
                name: self.input.line()?,
            }
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (self.heap.text(module), self.heap.text(name)) {
                (Some(module), Some(name)) if module.len().max(name.len()) <= LONGEST_LINE => {
                    Global { module, name }
                }
                _ => return self.fail("a global whose name is no text or too long"),
            }
        };
        self.push(Object::Global(global))
    }

    /// REDUCE, NEWOBJ, NEWOBJ_EX, INST, OBJ: see [`super::calls`] for the constructors that are known.
    fn construct(&mut self, op: u8) -> Result<(), Problem> {
        let (callable, args) = match op {
            b'i' => {
                let global = Global {
                    module: self.input.line()?,
                    name: self.input.line()?,
                };
                let args = self.pop_mark()?;
                (
                    self.heap.add(Object::Global(global))?,
                    self.heap.add(Object::Tuple(args))?,
                )
            }
            b'o' => {
                let mut items = self.pop_mark()?;
                if items.is_empty() {
                    return self.fail("OBJ without a class");
                }
                (items.remove(0), self.heap.add(Object::Tuple(items))?)
            }
            _ => {
                if op == 0x92 {
                    self.pop()?;
                }
                let args = self.pop()?;
                (self.pop()?, args)
            }
        };
        let made = self.call(callable, args)?;
        self.push_id(made)
    }

    /// BUILD: the state of an opaque object is kept; what it would add to a dict or a tensor are Python attributes.
    fn build(&mut self) -> Result<(), Problem> {
        let state = self.pop()?;
        let target = self.top()?;
        if let Object::Opaque(opaque) = self.heap.get_mut(target) {
            opaque.state = Some(state);
        }
        Ok(())
    }

    fn memoize(&mut self, op: u8) -> Result<(), Problem> {
        let key = match op {
            b'p' => self.input.parsed("a memo index")?,
            b'q' => self.input.uint(1)?,
            b'r' => self.input.uint(4)?,
            _ => self.memo.len() as u64,
        };
        let top = self.top()?;
        self.heap.charge(1)?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, op: u8) -> Result<(), Problem> {
        let key = match op {
            b'g' => self.input.parsed("a memo index")?,
            b'h' => self.input.uint(1)?,
            _ => self.input.uint(4)?,
        };
        match self.memo.get(&key) {
            Some(id) => self.push_id(*id),
            None => self.fail(format!("nothing is memoized as {key}")),
        }
    }

    fn mark(&mut self) -> Result<(), Problem> {
        self.heap.charge(1)?;
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, Problem> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => self.fail("no mark on the stack"),
        }
    }

    /// POP takes the mark when nothing lies above it.
    fn discard(&mut self) -> Result<(), Problem> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    /// Height of the stack without its `n` topmost values, which must lie above the last mark.
    fn height(&self, n: usize) -> Result<usize, Problem> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(n) {
            Some(height) if height >= floor => Ok(height),
            _ => self.fail("the stack is empty"),
        }
    }

    pub(super) fn pop(&mut self) -> Result<Id, Problem> {
        let height = self.height(1)?;
        let top = self.stack[height];
        self.stack.truncate(height);
        Ok(top)
    }

    fn top(&self) -> Result<Id, Problem> {
        self.height(1).map(|height| self.stack[height])
    }

    pub(super) fn push(&mut self, object: Object<'a>) -> Result<(), Problem> {
        let id = self.heap.add(object)?;
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn push_id(&mut self, id: Id) -> Result<(), Problem> {
        self.heap.charge(1)?;
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn opaque(&mut self, callable: Id) -> Result<Id, Problem> {
        self.heap.add(Object::Opaque(Opaque {
            callable,
            state: None,
        }))
    }

    pub(super) fn fail<T>(&self, what: impl Into<String>) -> Result<T, Problem> {
        self.input.fail(what)
    }
}

/// A little-endian two's complement integer.
fn long(bytes: &[u8]) -> Object<'_> {
    let Some(last) = bytes.last() else {
        return Object::Int(0);
    };
    if bytes.len() > 8 {
        return Object::Bytes;
    }
    let mut wide = [if last & 0x80 == 0 { 0 } else { 0xff }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Object::Int(i64::from_le_bytes(wide))
}
