//! From a document to its steps, links and headings. Blocks are found by a Markdown parser, so that what a forge
//! shows as a block is one, and nothing else is.

use std::path::Path;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::{Fault, Link, Runbook, RunbookError, front, step};

/// Steps beyond this are not a runbook but a program.
const STEPS_LIMIT: usize = 200;

/// Reads the text of a runbook.
///
/// # Errors
/// What is wrong with it, and at which line.
pub fn parse(path: &Path, text: &str) -> Result<Runbook, RunbookError> {
    understand(path, text).map_err(|Fault { line, message, hint }| RunbookError::Syntax {
        path: path.to_owned(),
        line,
        message,
        hint,
    })
}

/// What is open while events come by.
#[derive(Default)]
struct Open {
    /// Text of the heading or block that is being read.
    text: Option<String>,
    fence: Option<Fence>,
}

/// A fenced block that is being read.
struct Fence {
    line: usize,
    info: String,
    /// What stands before it.
    prose: String,
}

fn understand(path: &Path, text: &str) -> Result<Runbook, Fault> {
    if text.contains('\r') {
        let line = text[..text.find('\r').unwrap_or_default()].matches('\n').count() + 1;
        return Err(Fault::new(line, "a carriage return: lines of a runbook end with a line feed alone"));
    }
    if let Some(at) = text.find(|c: char| c.is_control() && c != '\n' && c != '\t') {
        let line = text[..at].matches('\n').count() + 1;
        return Err(Fault::new(
            line,
            "a control character: a terminal would show something else than what runs",
        ));
    }
    let front = front::parse(text)?;
    let mut runbook = Runbook {
        path: path.to_owned(),
        text: text.to_owned(),
        title: String::new(),
        steps: Vec::new(),
        links: Vec::new(),
        anchors: Vec::new(),
        front,
    };
    // Line ends before each byte, for line numbers without counting from the start each time.
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line_at = |byte: usize| ends.partition_point(|end| *end < byte) + 1;
    let options = Options::ENABLE_TABLES | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS;
    let (mut open, mut heading, mut told) = (Open::default(), String::new(), 0);
    for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { .. }) => open.text = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                heading = open.text.take().unwrap_or_default();
                told = range.end;
                if runbook.title.is_empty() {
                    runbook.title.clone_from(&heading);
                }
                let anchor = anchor(&heading);
                let same = runbook.anchors.iter().filter(|other| **other == anchor).count();
                runbook.anchors.push(if same == 0 { anchor } else { format!("{anchor}-{same}") });
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                let prose = text.get(told..range.start).unwrap_or_default().trim().to_owned();
                open.fence = Some(Fence { line: line_at(range.start), info: info.trim().to_owned(), prose });
                open.text = Some(String::new());
            }
            Event::End(TagEnd::CodeBlock) => {
                let text = open.text.take().unwrap_or_default();
                told = range.end;
                if let Some(fence) = open.fence.take() {
                    add(&mut runbook, fence, &text, &heading)?;
                }
            }
            Event::Text(piece) | Event::Code(piece) => {
                if let Some(text) = &mut open.text {
                    text.push_str(&piece);
                }
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                runbook.links.push(Link { line: line_at(range.start), target: dest_url.into_string() });
            }
            Event::Html(html) | Event::InlineHtml(html) if !html.trim_start().starts_with("<!--") => {
                return Err(Fault::new(line_at(range.start), "HTML: not every forge and terminal shows it"));
            }
            _ => {}
        }
    }
    if runbook.title.is_empty() {
        return Err(Fault::new(runbook.front.end_line, "a runbook has a heading: # What happened"));
    }
    if runbook.steps.is_empty() {
        return Err(Fault::new(runbook.front.end_line, "there is no step: ```sh {step=NAME phase=…}"));
    }
    Ok(runbook)
}

fn add(runbook: &mut Runbook, fence: Fence, text: &str, heading: &str) -> Result<(), Fault> {
    let Fence { line, info, prose } = fence;
    let Some(mut step) = step::parse(&info, line, text, heading)? else { return Ok(()) };
    step.prose = prose;
    if let Some(other) = runbook.step(&step.name) {
        return Err(Fault::new(line, format!("step {} is there already, at line {}", step.name, other.line)));
    }
    if step.text.trim().is_empty() {
        return Err(Fault::new(line, format!("step {} is empty", step.name)));
    }
    if runbook.steps.len() == STEPS_LIMIT {
        return Err(Fault::new(line, format!("more than {STEPS_LIMIT} steps")));
    }
    runbook.steps.push(step);
    Ok(())
}

/// A heading's anchor, as forges make it.
fn anchor(heading: &str) -> String {
    let keep = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    keep.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The anchors of another document.
pub(super) fn anchors(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for event in Parser::new_ext(text, Options::ENABLE_YAML_STYLE_METADATA_BLOCKS) {
        match event {
            Event::Start(Tag::Heading { .. }) => open = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => found.extend(open.take().map(|heading| anchor(&heading))),
            Event::Text(piece) | Event::Code(piece) => {
                if let Some(text) = &mut open {
                    text.push_str(&piece);
                }
            }
            _ => {}
        }
    }
    found
}
