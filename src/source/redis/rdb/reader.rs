//! The state machine that is fed an RDB in pieces of any size.
//!
//! It keeps the last eight bytes back from the checksum, because only the end tells that they are its value.

use super::kinds::{self, Kind, MODULE_AUX, Step};
use super::lzf;
use super::number::{Input, Length, Partial, little_endian};
use super::tally::Tally;
use super::{Item, Key, RdbError, Sink};
use crate::source::redis::crc64;

const MAGIC_BYTES: usize = 9;
const OLDEST: u32 = 5;
/// What is kept of a field about the file.
const ABOUT_BYTES: usize = 4096;
/// What is kept of a key's name: all a server takes by default.
const NAME_BYTES: usize = 512 << 20;

/// A string's form, which says how its bytes become the string.
#[derive(Clone, Copy, Debug)]
enum Form {
    Plain,
    Integer,
    Packed(u64),
}

/// What a string is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    AboutName,
    AboutValue,
    Name,
    Value,
}

/// What a number is for.
#[derive(Clone, Copy, Debug)]
enum Use {
    Nothing,
    Module,
    Database,
    Times(&'static [Step]),
    ModulePiece,
    Packed,
    Unpacked(u64),
}

#[derive(Clone, Copy, Debug)]
enum State {
    Magic,
    Opcode,
    Number(Use),
    Expiry {
        bytes: usize,
    },
    Decimal,
    Text,
    /// So many bytes of a string or a value's own field to pass.
    Pass(u64),
    Trailer,
    Ended,
    /// After a type that is not known.
    Opaque,
}

struct Frame {
    steps: &'static [Step],
    at: usize,
    left: u64,
}

/// What is being passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Nothing,
    Key,
    Function,
}

/// Reads one RDB.
pub struct Reader {
    state: State,
    partial: Partial,
    frames: Vec<Frame>,
    role: Role,
    form: Form,
    text: Vec<u8>,
    about: Vec<u8>,
    key: Key,
    kind: Option<Kind>,
    inside: Inside,
    /// An item's bytes begin with the next one.
    begins: bool,
    value_bytes: u64,
    crc: u64,
    held: Vec<u8>,
    tally: Tally,
}

impl Reader {
    /// `now_ms`: the instant by which keys count as expired.
    pub fn new(now_ms: i64) -> Self {
        Self {
            state: State::Magic,
            partial: Partial::default(),
            frames: Vec::new(),
            role: Role::Value,
            form: Form::Plain,
            text: Vec::new(),
            about: Vec::new(),
            key: Key::default(),
            kind: None,
            inside: Inside::Nothing,
            begins: false,
            value_bytes: 0,
            crc: 0,
            held: Vec::new(),
            tally: Tally::new(now_ms),
        }
    }

    /// What came so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether the file's own end came: more bytes would not be its.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// They cannot belong to an RDB, or the sink refuses.
    pub fn feed<S: Sink>(&mut self, bytes: &[u8], sink: &mut S) -> Result<(), RdbError> {
        self.checksum(bytes);
        let mut input = Input { bytes, at: 0 };
        let mut from = 0;
        while !input.is_empty() {
            let at = self.tally.size_bytes + input.at as u64;
            let corrupt = |what| RdbError::Corrupt { at, what };
            match self.state {
                State::Opaque => input.at = bytes.len(),
                State::Ended => return Err(corrupt("bytes after its end")),
                State::Pass(left) => self.pass::<S>(left, &mut input, corrupt)?,
                _ => self.field(&mut input, corrupt)?,
            }
            // Strings and values without a byte end at once, so an item may end and more than one step be done.
            from = self.settle(&input, from, at, sink)?;
        }
        if self.inside != Inside::Nothing {
            self.emit(&bytes[from..], sink)?;
        }
        self.tally.size_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Whether all of it came, with the right checksum.
    ///
    /// # Errors
    /// Not.
    pub fn finish(mut self) -> Result<Tally, RdbError> {
        let at = self.tally.size_bytes;
        if !matches!(self.state, State::Ended | State::Opaque) || self.held.len() != 8 {
            return Err(RdbError::Truncated { at });
        }
        let written = little_endian(&self.held).cast_unsigned();
        self.tally.checksummed = written != 0;
        if self.tally.checksummed && written != self.crc {
            return Err(RdbError::Checksum { written, computed: self.crc });
        }
        Ok(self.tally)
    }

    fn checksum(&mut self, bytes: &[u8]) {
        if let Some(before) = bytes.len().checked_sub(8) {
            self.crc = crc64::update(self.crc, &self.held);
            self.crc = crc64::update(self.crc, &bytes[..before]);
            self.held.clear();
            self.held.extend_from_slice(&bytes[before..]);
        } else {
            self.held.extend_from_slice(bytes);
            let surplus = self.held.len().saturating_sub(8);
            self.crc = crc64::update(self.crc, &self.held[..surplus]);
            self.held.drain(..surplus);
        }
    }

    /// A short field: its meaning, once all of it came.
    fn field(
        &mut self,
        input: &mut Input<'_>,
        corrupt: impl Fn(&'static str) -> RdbError,
    ) -> Result<(), RdbError> {
        match self.state {
            State::Magic => {
                let Some(magic) = self.partial.fixed(MAGIC_BYTES, input) else { return Ok(()) };
                let (version, is_valkey) = magic_version(magic)?;
                (self.tally.version, self.tally.is_valkey) = (version, is_valkey);
                self.state = State::Opcode;
            }
            State::Opcode => {
                let Some(&[opcode]) = self.partial.fixed(1, input).and_then(|bytes| bytes.first_chunk())
                else {
                    return Ok(());
                };
                self.opcode(opcode, self.tally.size_bytes + input.at as u64 - 1);
            }
            State::Expiry { bytes } => {
                let Some(field) = self.partial.fixed(bytes, input) else { return Ok(()) };
                let number = little_endian(field);
                self.key.expires_ms = Some(if bytes == 4 { number.saturating_mul(1000) } else { number });
                self.state = State::Opcode;
            }
            State::Decimal => {
                let Some(&[length]) = self.partial.fixed(1, input).and_then(|bytes| bytes.first_chunk())
                else {
                    return Ok(());
                };
                self.state = State::Pass(if length >= 253 { 0 } else { length.into() });
            }
            State::Text => match self.partial.length(input).map_err(&corrupt)? {
                None => {}
                Some(Length::Packed) => self.state = State::Number(Use::Packed),
                Some(Length::Integer(bytes)) => self.begin_text(Form::Integer, bytes.into()),
                Some(Length::Plain(bytes)) => self.begin_text(Form::Plain, bytes),
            },
            State::Number(purpose) => match self.partial.length(input).map_err(&corrupt)? {
                None => {}
                Some(Length::Plain(number)) => self.number(purpose, number).map_err(corrupt)?,
                Some(_) => return Err(corrupt("a string where a number is due")),
            },
            State::Trailer => {
                if self.partial.fixed(8, input).is_some() {
                    self.state = State::Ended;
                }
            }
            State::Pass(_) | State::Ended | State::Opaque => {}
        }
        Ok(())
    }

    fn opcode(&mut self, opcode: u8, at: u64) {
        const ONE: &[Step] = &[Step::Number];
        const TWO: &[Step] = &[Step::Number; 2];
        const THREE: &[Step] = &[Step::Number; 3];
        match opcode {
            0xff => self.state = State::Trailer,
            0xfe => self.state = State::Number(Use::Database),
            0xfd => self.state = State::Expiry { bytes: 4 },
            0xfc => self.state = State::Expiry { bytes: 8 },
            0xfb => self.run(TWO, Inside::Nothing),
            0xfa => self.text(Role::AboutName),
            // How often and how long ago a key was used.
            0xf9 => self.run(&[Step::Raw(1)], Inside::Nothing),
            0xf8 => self.run(ONE, Inside::Nothing),
            0xf7 => self.run(MODULE_AUX, Inside::Nothing),
            0xf5 => self.run(&[Step::Text], Inside::Function),
            // Sizes of a cluster slot.
            0xf4 => self.run(THREE, Inside::Nothing),
            byte => match kinds::kind(byte) {
                Some(kind) => {
                    self.kind = Some(kind);
                    self.key.kind = byte;
                    self.text(Role::Name);
                }
                None => {
                    self.tally.unknown = Some((at, byte));
                    self.state = State::Opaque;
                }
            },
        }
    }

    fn text(&mut self, role: Role) {
        self.role = role;
        self.state = State::Text;
    }

    fn begin_text(&mut self, form: Form, bytes: u64) {
        self.form = form;
        self.text.clear();
        self.state = State::Pass(bytes);
    }

    fn run(&mut self, steps: &'static [Step], inside: Inside) {
        self.frames.push(Frame { steps, at: 0, left: 1 });
        self.inside = inside;
        self.begins = inside != Inside::Nothing;
        self.role = Role::Value;
        // Nothing to pass: the first step begins when this is settled.
        self.state = State::Pass(0);
    }

    fn number(&mut self, purpose: Use, number: u64) -> Result<(), &'static str> {
        self.state = State::Pass(0);
        match purpose {
            Use::Nothing => {}
            Use::Module => self.tally.add_module(number),
            Use::Database => {
                self.key.database = number;
                self.state = State::Opcode;
            }
            Use::Times(steps) if number > 0 => self.frames.push(Frame { steps, at: 0, left: number }),
            Use::Times(_) => {}
            Use::Packed => self.state = State::Number(Use::Unpacked(number)),
            Use::Unpacked(packed) => self.begin_text(Form::Packed(number), packed),
            Use::ModulePiece => {
                let steps: &'static [Step] = match number {
                    0 => return Ok(()),
                    1 | 2 => &[Step::Number, Step::Module],
                    3 => &[Step::Raw(4), Step::Module],
                    4 => &[Step::Raw(8), Step::Module],
                    5 => &[Step::Text, Step::Module],
                    _ => return Err("a module's value of no known form"),
                };
                // In place of the frame that ends with this piece: a long value is no deep one.
                while self.frames.pop_if(|frame| frame.at == frame.steps.len() && frame.left <= 1).is_some() {
                }
                self.frames.push(Frame { steps, at: 0, left: 1 });
            }
        }
        Ok(())
    }

    fn pass<S: Sink>(
        &mut self,
        left: u64,
        input: &mut Input<'_>,
        corrupt: impl Fn(&'static str) -> RdbError,
    ) -> Result<(), RdbError> {
        let rest = input.rest();
        let now = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
        let most = match self.role {
            Role::AboutName | Role::AboutValue => ABOUT_BYTES,
            Role::Name if S::VALUES => NAME_BYTES,
            Role::Name | Role::Value => 0,
        };
        let keep = now.min(most.saturating_sub(self.text.len()));
        if keep < now && most == NAME_BYTES {
            return Err(corrupt("a key longer than any"));
        }
        self.text.extend_from_slice(&rest[..keep]);
        input.at += now;
        self.state = State::Pass(left - now as u64);
        Ok(())
    }

    /// Does what needs no further byte: ends strings, values and items. Returns where bytes not yet emitted begin.
    fn settle<S: Sink>(
        &mut self,
        input: &Input<'_>,
        mut from: usize,
        at: u64,
        sink: &mut S,
    ) -> Result<usize, RdbError> {
        while let State::Pass(0) = self.state {
            let corrupt = |what| RdbError::Corrupt { at, what };
            match self.role {
                Role::Value => {
                    if std::mem::take(&mut self.begins) {
                        from = input.at;
                        sink.begin(match self.inside {
                            Inside::Function => Item::Function,
                            _ => Item::Key(&self.key),
                        })?;
                    }
                    if !self.next_step() {
                        if self.inside != Inside::Nothing {
                            self.emit(&input.bytes[from..input.at], sink)?;
                            self.end_item(sink)?;
                        }
                        self.state = State::Opcode;
                    }
                    continue;
                }
                Role::AboutName => {
                    self.about = self.string().unwrap_or_default();
                    self.text(Role::AboutValue);
                }
                Role::AboutValue => {
                    let value = self.string().unwrap_or_default();
                    self.tally.add_about(&self.about, &value);
                    self.state = State::Opcode;
                }
                Role::Name => {
                    let kind = self.kind.take().ok_or_else(|| corrupt("a key without a type"))?;
                    if S::VALUES {
                        self.key.name = self.string().ok_or_else(|| corrupt("a key that does not unpack"))?;
                    }
                    self.tally.add_key(self.key.database, &kind, self.key.expires_ms)?;
                    self.run(kind.steps, Inside::Key);
                }
            }
            if matches!(self.state, State::Text | State::Opcode) {
                self.text.clear();
            }
        }
        Ok(from)
    }

    /// Begins the next step of what is being passed over; `false` when there is none.
    fn next_step(&mut self) -> bool {
        while let Some(frame) = self.frames.last_mut() {
            let Some(step) = frame.steps.get(frame.at) else {
                frame.left -= 1;
                frame.at = 0;
                if frame.left == 0 {
                    self.frames.pop();
                }
                continue;
            };
            frame.at += 1;
            self.state = match *step {
                Step::Text => State::Text,
                Step::Number => State::Number(Use::Nothing),
                Step::ModuleName => State::Number(Use::Module),
                Step::Raw(bytes) => State::Pass(bytes),
                Step::Decimal => State::Decimal,
                Step::Times(steps) => State::Number(Use::Times(steps)),
                Step::Module => State::Number(Use::ModulePiece),
            };
            return true;
        }
        false
    }

    fn emit<S: Sink>(&mut self, bytes: &[u8], sink: &mut S) -> Result<(), RdbError> {
        self.value_bytes += bytes.len() as u64;
        if S::VALUES { sink.bytes(bytes) } else { Ok(()) }
    }

    fn end_item<S: Sink>(&mut self, sink: &mut S) -> Result<(), RdbError> {
        match self.inside {
            Inside::Function => self.tally.functions += 1,
            _ => {
                let largest = &mut self.tally.largest_value_bytes;
                *largest = (*largest).max(self.value_bytes);
                self.key.expires_ms = None;
            }
        }
        self.inside = Inside::Nothing;
        self.value_bytes = 0;
        sink.end()
    }

    /// The string whose bytes came.
    fn string(&mut self) -> Option<Vec<u8>> {
        let text = std::mem::take(&mut self.text);
        match self.form {
            Form::Plain => Some(text),
            Form::Integer => Some(little_endian(&text).to_string().into_bytes()),
            Form::Packed(length) => lzf::unpack(&text, length),
        }
    }
}

fn magic_version(magic: &[u8]) -> Result<(u32, bool), RdbError> {
    let found = || RdbError::Magic(String::from_utf8_lossy(magic).into_owned());
    let redis = magic.strip_prefix(b"REDIS");
    let (digits, is_valkey) = match redis {
        Some(digits) => (digits, false),
        None => (magic.strip_prefix(b"VALKEY").ok_or_else(found)?, true),
    };
    let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let version = digits.and_then(|digits| digits.parse().ok()).ok_or_else(found)?;
    if version < OLDEST { Err(RdbError::TooOld(version)) } else { Ok((version, is_valkey)) }
}
