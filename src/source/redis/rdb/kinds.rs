//! The value types of RDB, each as a program of what its bytes are, so that any value can be passed over.
//!
//! The layouts are those of Redis' `rdb.h` and `rdb.c`, versions 5 to 12. A type not named here is one we do not
//! know: from there on nothing can be counted.

/// One step through a value.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A string in any encoding.
    Text,
    /// A plain length.
    Number,
    /// A plain length that is a module's name and version.
    ModuleName,
    /// So many bytes as they are.
    Raw(u64),
    /// A number in decimal after its length in one byte, of which the three highest mean NaN and the infinities.
    Decimal,
    /// A plain length, and that many times the steps.
    Times(&'static [Step]),
    /// A module's own, in pieces that say what they are, to its end mark.
    Module,
}

use Step::{Decimal, Module, ModuleName, Number, Raw, Text, Times};

const NODES: Step = Times(&[Text, Text]);
const PENDING: Step = Times(&[Raw(24), Number]);
const OWNED: Step = Times(&[Raw(16)]);
const GROUPS: [Step; 3] = [
    Times(&[Text, Number, Number, PENDING, Times(&[Text, Raw(8), OWNED])]),
    Times(&[Text, Number, Number, Number, PENDING, Times(&[Text, Raw(8), OWNED])]),
    Times(&[Text, Number, Number, Number, PENDING, Times(&[Text, Raw(8), Raw(8), OWNED])]),
];
const STREAM: &[Step] = &[NODES, Number, Number, Number, GROUPS[0]];
const STREAM_2: &[Step] = &[NODES, Number, Number, Number, Number, Number, Number, Number, Number, GROUPS[1]];
const STREAM_3: &[Step] = &[NODES, Number, Number, Number, Number, Number, Number, Number, Number, GROUPS[2]];

/// What a module leaves beside the keys: its name, when, then its own.
pub const MODULE_AUX: &[Step] = &[ModuleName, Number, Number, Module];

/// What people call the types.
pub const NAMES: [&str; 7] = ["string", "list", "set", "zset", "hash", "stream", "module"];

/// What people call a type, and how its values are laid out.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its place in [`NAMES`].
    pub name: usize,
    pub steps: &'static [Step],
    /// Single fields may expire, and the last one takes the key with it.
    pub fields_expire: bool,
}

/// The type behind a type byte.
pub fn kind(byte: u8) -> Option<Kind> {
    let (name, steps): (_, &'static [Step]) = match byte {
        0 => (0, &[Text]),
        1 | 14 => (1, &[Times(&[Text])]),
        2 => (2, &[Times(&[Text])]),
        3 => (3, &[Times(&[Text, Decimal])]),
        4 => (4, &[Times(&[Text, Text])]),
        5 => (3, &[Times(&[Text, Raw(8)])]),
        7 => (6, &[ModuleName, Module]),
        9 | 13 | 16 => (4, &[Text]),
        10 => (1, &[Text]),
        11 | 20 => (2, &[Text]),
        12 | 17 => (3, &[Text]),
        18 => (1, &[Times(&[Number, Text])]),
        15 => (5, STREAM),
        19 => (5, STREAM_2),
        21 => (5, STREAM_3),
        24 => (4, &[Raw(8), Times(&[Number, Text, Text])]),
        25 => (4, &[Raw(8), Text]),
        _ => return None,
    };
    Some(Kind { name, steps, fields_expire: matches!(byte, 24 | 25) })
}
