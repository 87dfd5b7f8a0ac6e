//! Secrets out of evidence, before it is signed: whatever programs, services and containers said stands in a few of its
//! fields, and only those are looked at. What a program said is cleaned once before, where it comes in: there also of
//! secrets that are ordinary words, which the words of ours may hold by chance.

use super::evidence::{ComponentRow, Evidence};
use crate::runbook::redact::Redactor;

/// Masks what must not be kept. Twice is once.
pub fn redact(evidence: &mut Evidence, redactor: &Redactor) {
    let redactor = &redactor.without_words();
    let clean = |text: &mut String| *text = redactor.clean(text);
    let clean_some = |text: &mut Option<String>| {
        if let Some(text) = text {
            *text = redactor.clean(text);
        }
    };
    for check in &mut evidence.checks {
        clean(&mut check.name);
        clean(&mut check.detail);
        [&mut check.subject, &mut check.expected, &mut check.found].into_iter().for_each(clean_some);
    }
    for fault in &mut evidence.faults {
        clean(&mut fault.injected);
        clean(&mut fault.detail);
    }
    evidence.not_tested.iter_mut().for_each(clean);
    clean(&mut evidence.repository);
    clean_some(&mut evidence.sandbox);
    clean_some(&mut evidence.reason);
    for ComponentRow { repository, sandbox, reason, .. } in
        evidence.stack.iter_mut().flat_map(|stack| &mut stack.components)
    {
        clean(repository);
        [sandbox, reason].into_iter().for_each(clean_some);
    }
    evidence.measured.copies.iter_mut().for_each(|copy| clean_some(&mut copy.problem));
    if let Some(start) = &mut evidence.start {
        clean(&mut start.address);
        start.options.iter_mut().for_each(clean);
    }
}
