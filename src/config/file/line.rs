//! Which line of the file a message is about, when only its meaning was wrong: `stack shop: app needs …` stands where
//! that stack's `app` does.

/// The line, counted from 1; `None` when the message names no section of the file.
pub fn of(text: &str, message: &str) -> Option<usize> {
    let (head, rest) = message.split_once(": ")?;
    let (kind, name) = head.split_once(' ').unwrap_or((head, ""));
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| !is_header(line, kind, name));
    let (header, _) = lines.next()?;
    // The key that the message begins with, if it stands in this section.
    let first: String =
        rest.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')).collect();
    let mut section = lines.take_while(|(_, line)| !line.trim_start().starts_with('['));
    let key = section.find(|(_, line)| {
        let key = line.split('=').next().unwrap_or_default().trim().trim_matches(['"', '\'']);
        !first.is_empty() && key.replace('-', "_") == first.replace('-', "_")
    });
    Some(key.map_or(header, |(line, _)| line) + 1)
}

/// `[job.db]`, however it is quoted, and `[job.db.…]`.
fn is_header(line: &str, kind: &str, name: &str) -> bool {
    let Some(header) = line.trim().strip_prefix('[') else { return false };
    let header = header.split(']').next().unwrap_or_default().replace(['"', '\'', ' '], "");
    let wanted = if name.is_empty() { kind.to_owned() } else { format!("{kind}.{}", name.replace(' ', "")) };
    header == wanted || header.starts_with(&format!("{wanted}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_led_back_to_its_section_and_key() {
        let text = "[repository.a]\nurl = \"/r\"\n\n[stack.\"my shop\"]\ndb = {}\napp = { needs = [\"x\"] }\n[job.b]\n";
        assert_eq!(of(text, "stack my shop: app needs x, and there is none"), Some(6));
        assert_eq!(of(text, "stack my shop: these need each other"), Some(4));
        assert_eq!(of(text, "job b: there is nothing to back up"), Some(7));
        assert_eq!(of(text, "timezone: no such zone"), None);
        assert_eq!(of("", ""), None);
    }
}
