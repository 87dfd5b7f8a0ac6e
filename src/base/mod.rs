//! Level 0: small things without domain words that every other level may lean on.

pub mod cancel;
pub mod random;
