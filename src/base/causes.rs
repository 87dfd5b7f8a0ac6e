//! An error as one line: what happened, and why, each cause once.

use std::error::Error;

/// The error and its causes, outermost first. A cause that the text before it already repeats is left out.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{says}")]
    struct Said {
        says: &'static str,
        #[source]
        because: Option<Box<Said>>,
    }

    #[test]
    fn each_cause_is_told_once() {
        let said = |says, because: Option<Said>| Said { says, because: because.map(Box::new) };
        let disk = said("disk full", Some(said("no space", None)));
        assert_eq!(causes(&said("write", Some(disk))), "write: disk full: no space");
        let repeated = said("write: disk full", Some(said("disk full", Some(said("os error 28", None)))));
        assert_eq!(causes(&repeated), "write: disk full: os error 28");
    }
}
