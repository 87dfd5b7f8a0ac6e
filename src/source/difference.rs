//! One thing that is not as a snapshot's facts have it: what a look at a restored service gives to whoever judges.

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What differs: `public.orders`, `role reader`.
    pub subject: String,
    /// As it was captured: `500 rows`.
    pub expected: String,
    /// As it is.
    pub found: String,
    /// Why that matters, where the difference alone does not say it.
    pub why: Option<String>,
}

impl Difference {
    pub fn new(subject: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { subject: subject.into(), expected: expected.into(), found: found.into(), why: None }
    }

    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// In words, where what differs is told already.
    pub fn without_subject(&self) -> String {
        let why = self.why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        format!("{}, expected {}{why}", self.found, self.expected)
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.subject, self.without_subject())
    }
}
