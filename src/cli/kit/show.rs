//! `kit show`: what a kit says of itself. No storage is reached and nothing secret is printed.

use jiff::Timestamp;

use super::super::text::{plural, shown};
use super::super::{CliError, Context, Exit};
use super::configuration;
use crate::app::kits;
use crate::engine;
use crate::format::header::ObjectKind;
use crate::format::keyring::Role;
use crate::repo::kit::Kit;

pub fn run(kit: &Kit, config: bool, context: &Context) -> Result<Exit, CliError> {
    if config {
        let none = || CliError::new(Exit::Failed, "the kit holds no configuration file");
        context.print(kit.config.as_deref().ok_or_else(none)?.trim_end())?;
        return Ok(Exit::Ok);
    }
    tell(kit, context)?;
    if kit.altered {
        let why = "characters of the addresses, the repository's id or the date in this kit were changed";
        return Err(
            CliError::new(Exit::Damage, why).hint("its keys are sound: give the right address with -r")
        );
    }
    Ok(Exit::Ok)
}

/// How the configuration file in it stands to the one here.
fn config_state(kit: &Kit, context: &Context) -> (&'static str, String) {
    let here = configuration(context);
    match (&kit.config, here) {
        (None, None) => ("none", "none, neither in it nor here".into()),
        (None, Some((path, _))) => ("missing", format!("not in it; {} is here", path.display())),
        (Some(_), None) => ("held", "lifeboat.toml, without secrets; there is none here to compare".into()),
        (Some(held), Some((path, text))) => match same(held, &text) {
            true => ("current", format!("as {} is now, without secrets", path.display())),
            false => ("older", format!("not as {} is now: make a new kit", path.display())),
        },
    }
}

/// Line by line, as a mail leaves them.
fn same(held: &str, here: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    lines(held) == lines(here)
}

/// Says what is in a kit.
pub fn tell(kit: &Kit, context: &Context) -> Result<(), CliError> {
    let record = kits::find(&context.settings, &kit.repo).unwrap_or_default();
    let opened = record.opened.as_ref().filter(|opened| opened.fingerprint == kit.fingerprint());
    let slots = kit.slots();
    let (state, config) = config_state(kit, context);
    if context.json {
        let number = |kind| kit.number(kind);
        let slot = |slot: &crate::seal::slot::Slot| {
            serde_json::json!({
                "label": slot.info.label,
                "unlocked_by": if slot.info.memory_kib > 0 { "password" } else { "key file" },
            })
        };
        return context.json(&serde_json::json!({
            "repository_id": kit.repo.hex(),
            "made_at": kit.made,
            "fingerprint": kit.fingerprint(),
            "addresses": kit.addresses,
            "altered": kit.altered,
            "numbers": {
                "config": number(ObjectKind::Config),
                "roster": number(ObjectKind::Roster),
                "keyring": number(ObjectKind::Keyring),
            },
            "slots": slots.iter().map(slot).collect::<Vec<_>>(),
            "drill_keys": kit.drill_keys,
            "configuration": state,
            "opened_at": opened.map(|opened| opened.at.to_string()),
            "objects": kit.objects.keys().collect::<Vec<_>>(),
        }));
    }
    let mut lines = vec![format!("recovery kit of repository {}", kit.repo)];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<9} {text}"));
    for (at, address) in kit.addresses.iter().enumerate() {
        line(if at == 0 { "opens" } else { "or" }, shown(address.as_bytes()));
    }
    let with = slots.iter().filter(|slot| slot.info.role == Role::Owner).map(|slot| {
        let what = if slot.info.memory_kib > 0 { "a password" } else { "a key file" };
        match slot.info.label.as_str() {
            "" => what.to_owned(),
            label => format!("{what} ({})", shown(label.as_bytes())),
        }
    });
    line("with", with.collect::<Vec<_>>().join(", or "));
    line("made", format!("{}{}", shown(kit.made.as_bytes()), age(&kit.made)));
    let number = |kind| kit.number(kind).map_or("?".into(), |number| number.to_string());
    let (roster, keyring) = (number(ObjectKind::Roster), number(ObjectKind::Keyring));
    let keys = plural(kit.slots().len() as u64, "owner's slot");
    line(
        "holds",
        format!("config {}, roster {roster}, keyring {keyring}, {keys}", number(ObjectKind::Config)),
    );
    line("file", config);
    for (key, host) in kit.drill_keys() {
        let (key, host) = (shown(key.as_bytes()), shown(host.as_bytes()));
        line("evidence", format!("of drills on {host}: lifeboat drill attest FILE --pubkey {key}"));
    }
    if kit.drill_keys.is_empty() {
        line("evidence", "no drill's key: none had been run when it was made".into());
    }
    line(
        "printed",
        match engine::kit::codes(kit).0.len() {
            1 => "in 1 QR code".into(),
            several => format!("in {several} QR codes"),
        },
    );
    line(
        "opened",
        match opened {
            Some(opened) => format!("{} here, by {}", opened.at, shown(opened.user.as_bytes())),
            None => "never here: `lifeboat kit open FILE` proves that it works".into(),
        },
    );
    context.print(lines.join("\n"))
}

/// ` (3 days ago)`, when it is to be told.
fn age(made: &str) -> String {
    let Ok(made) = made.parse::<Timestamp>() else { return String::new() };
    let days = Timestamp::now().duration_since(made).as_hours() / 24;
    match days {
        ..0 => " (in the future)".into(),
        0 => String::new(),
        1 => " (1 day ago)".into(),
        days => format!(" ({days} days ago)"),
    }
}
